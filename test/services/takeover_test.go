// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/process"
	"github.com/podwall/podwall/internal/lab/scenarios"
	inside "github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/lab/testkit/fakeapi"
	"github.com/podwall/podwall/internal/proxy/foreign"
	"github.com/podwall/podwall/internal/proxy/foreign/host"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
)

// The Service of the take-over, whose backend is this process.
const (
	takenService = `{"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"type": "LoadBalancer",
		"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "clusterIPs": ["10.96.0.10", "fd00:10:96::10"], "ports": [{"port": 80, "nodePort": 30080}]}}`
	takenSlices = `{"kind": "EndpointSlice", "metadata": {"name": "web-%[1]d", "namespace": "shop", "labels":
		{"kubernetes.io/service-name": "web"}}, "addressType": "IPv%[1]d", "ports": [{"port": %[3]d}],
		"endpoints": [{"addresses": [%[2]q], "nodeName": "one"}]}`
	nodeV4, nodeV6 = "172.30.0.11", "fd00:172:30::11"
	front4, front6 = "10.96.0.10:80", "[fd00:10:96::10]:80"
)

// takenConfig is kube-proxy's, in a mode. The periods are short, so that a test sees that it writes.
const takenConfig = `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: one
clientConnection: {kubeconfig: %s, acceptContentTypes: application/json, contentType: application/json}
detectLocalMode: ClusterCIDR
clusterCIDR: 10.244.0.0/16,fd00:10:244::/48
nftables: {minSyncPeriod: 10ms, syncPeriod: 500ms}
iptables: {minSyncPeriod: 10ms, syncPeriod: 500ms}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
oomScoreAdj: 0
`

// here prepares the network namespace of this process as a node with a backend.
func here(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	check(t, err)
	check(t, netlink.LinkSetUp(lo))
	for _, a := range []string{nodeV4, nodeV6} {
		check(t, netlink.AddrAdd(lo, address(netip.MustParseAddr(a))))
	}
	for _, r := range []string{"10.96.0.0/16", "fd00:10:96::/112"} { // connect needs a route
		_, dst, err := parseRoute(r)
		check(t, err)
		check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst}))
	}
	for _, at := range []string{nodeV4 + ":8080", nodeV4 + ":8081", "[" + nodeV6 + "]:8080", "[" + nodeV6 + "]:8081"} {
		l, err := net.Listen("tcp", at)
		check(t, err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { // its name first, and then what it hears
					_, _ = c.Write([]byte(at[len(at)-4:]))
					_, _ = io.Copy(c, c)
					_ = c.Close()
				}()
			}
		}()
	}
}

func takenObjects(port int) []json.RawMessage {
	return []json.RawMessage{[]byte(takenService), fmt.Appendf(nil, takenSlices, 4, nodeV4, port),
		fmt.Appendf(nil, takenSlices, 6, nodeV6, port)}
}

// startHere starts kube-proxy in the network namespace of this process, and waits until it serves. Each
// call of change makes it write.
func startHere(t *testing.T, mode string, env ...string) (proxy *process.Process, change func()) {
	t.Helper()
	program := kubeProxyProgram(t)
	p := &kubeProxy{server: fakeapi.New()}
	w := &scenarios.World{ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}}
	node := &scenarios.Node{Host: scenarios.Host{Name: "one", IPs: []netip.Addr{netip.MustParseAddr(nodeV4), netip.MustParseAddr(nodeV6)}}}
	change = func() { p.set(t, w, node, takenObjects(8080)) }
	change()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	web := &http.Server{Handler: p.server, ReadHeaderTimeout: time.Minute}
	go func() { _ = web.Serve(listener) }()
	t.Cleanup(func() { _ = web.Close() })
	dir := t.TempDir()
	kubeconfig, file := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "kube-proxy.yaml")
	check(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, "apiVersion: v1\nkind: Config\ncurrent-context: x\n"+
		"clusters: [{name: x, cluster: {server: \"http://%s\"}}]\ncontexts: [{name: x, context: {cluster: x}}]\n",
		listener.Addr()), 0o600))
	check(t, os.WriteFile(file, fmt.Appendf(nil, takenConfig, mode, kubeconfig), 0o600))
	cmd := exec.Command(program, "--config="+file)
	cmd.Env = append(os.Environ(), env...)
	proxy, err = process.Start(cmd, process.Options{Name: "kube-proxy",
		Log: filepath.Join(dir, "*.log"), Group: true})
	check(t, err)
	t.Cleanup(proxy.Kill)
	for start := time.Now(); connect(front4) != nil || connect(front6) != nil; time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("kube-proxy in %s mode does not serve: %v %v\n%s", mode, connect(front4), connect(front6), proxy.Tail())
		}
	}
	return proxy, change
}

func connect(to string) error {
	c, err := net.DialTimeout("tcp", to, time.Second)
	if err == nil {
		err = c.Close()
	}
	return err
}

// reached returns the port of the backend that answers.
func reached(to string) string {
	c, err := net.DialTimeout("tcp", to, time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// looked reads the inventory.
func looked(t *testing.T) foreign.Inventory {
	t.Helper()
	inv, err := host.Look(t.Context())
	check(t, err)
	return inv
}

// rules lists all rules of this network namespace but our own.
func rules(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("nft", "--stateless", "list", "ruleset").Output()
	check(t, err)
	var list []string
	ours := false
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "table") {
			ours = strings.Contains(line, "podwall")
		}
		if line = strings.TrimSpace(line); !ours && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

// loadOurs brings our tables into the kernel, with backends at a port.
func loadOurs(t *testing.T, port int) {
	t.Helper()
	w, _, err := scenarios.Read(os.DirFS("../../testdata/services"))
	check(t, err)
	snap, _, err := w.Snapshot(takenObjects(port))
	check(t, err)
	own := []netip.Addr{netip.MustParseAddr(nodeV4), netip.MustParseAddr(nodeV6)}
	m, _ := service.Resolve(snap, service.Settings{Node: "one", OwnAddresses: own, NodePortAddresses: own})
	for _, f := range inet.Families {
		conn, err := nft.Open(0, ruleset.Table(f))
		check(t, err)
		var r ruleset.Renderer
		check(t, conn.Commit(nft.Diff(nil, r.Render(m.Program(f), ruleset.Settings{}))))
		check(t, conn.Close())
	}
}

// clients connect to the Service until they are stopped, and say what went wrong.
type clients struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	count  int
	failed []string
}

func startClients(t *testing.T) *clients {
	ctx, cancel := context.WithCancel(t.Context())
	c := &clients{cancel: cancel}
	for _, to := range []string{front4, front6, nodeV4 + ":30080", "[" + nodeV6 + "]:30080"} {
		c.done.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				err := connect(to)
				c.mu.Lock()
				if c.count++; err != nil || time.Since(start) > 900*time.Millisecond {
					c.failed = append(c.failed, fmt.Sprintf("%s after %v: %v", to, time.Since(start), err))
				}
				c.mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return c
}

func (c *clients) stop(t *testing.T) {
	t.Helper()
	c.cancel()
	c.done.Wait()
	if t.Logf("%d connections", c.count); len(c.failed) > 0 || c.count < 100 {
		t.Errorf("%d of %d connections failed: %v", len(c.failed), c.count, c.failed[:min(5, len(c.failed))])
	}
}

// theirs are rules of other programs, which must stay. A hostPort marks packets in kube-proxy's chain.
const theirs = `
table ip filter { chain FORWARD { type filter hook forward priority 0; policy accept; }; chain theirs { counter; }; }
add rule ip filter FORWARD jump theirs
table ip nat { chain PREROUTING { type nat hook prerouting priority -100; }; chain theirs { tcp dport 1 counter; }; }
add rule ip nat PREROUTING jump theirs
table inet kube-proxy { chain x { }; }
`

func TestTheTakeOverFromNftablesMode(t *testing.T) {
	kubeProxyProgram(t)
	inside.Run(t, func(t *testing.T) { takeOver(t, "nftables") })
}

func TestTheTakeOverFromIptablesMode(t *testing.T) {
	kubeProxyProgram(t)
	inside.Run(t, func(t *testing.T) { takeOver(t, "iptables") })
}

// seesItWrite shows that a kube-proxy that runs is seen when it writes: also after its rules are gone.
func seesItWrite(t *testing.T, change func()) {
	t.Helper()
	inv := looked(t)
	if time.Sleep(time.Second); !slices.Equal(foreign.Marks(inv), foreign.Marks(looked(t))) {
		t.Error("without a change the marks are others") // else they say nothing of it
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for start := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
			if time.Since(start) > 2*time.Minute {
				t.Fatal(what)
			}
		}
	}
	change()
	until("it writes and leaves the same marks", func() bool { return !slices.Equal(foreign.Marks(inv), foreign.Marks(looked(t))) })
	until("it cannot be removed", func() bool { // while it writes, a plan is soon an old one
		plan := foreign.Decide(looked(t), true)
		plan.Refusals = nil
		err := host.Remove(t.Context(), plan)
		if err != nil && !strings.Contains(err.Error(), "nothing was changed") {
			t.Fatal(err)
		}
		return err == nil && len(foreign.Decide(looked(t), true).Found) == 0
	})
	change()
	until("it does not come back", func() bool {
		return len(foreign.Decide(looked(t), true).Found) > 0 && connect(front4) == nil && connect(front6) == nil
	})
}

// stays opens a connection. What it returns wants it to live.
func stays(t *testing.T, to string) (lives func()) {
	t.Helper()
	c, err := net.Dial("tcp", to)
	check(t, err)
	t.Cleanup(func() { _ = c.Close() })
	name := make([]byte, 4)
	_, err = io.ReadFull(c, name)
	check(t, err)
	return func() {
		t.Helper()
		check(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
		if _, err := c.Write([]byte("on?")); err != nil {
			t.Errorf("a connection from before to %s: %v", to, err)
		} else if _, err := io.ReadFull(c, name[:3]); err != nil || string(name[:3]) != "on?" {
			t.Errorf("a connection from before to %s: heard %q, %v", to, name[:3], err)
		}
	}
}

func takeOver(t *testing.T, mode string) {
	here(t)
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(theirs)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := rules(t)
	proxy, change := startHere(t, mode)

	inv := looked(t)
	plan := foreign.Decide(inv, true)
	if len(plan.Refusals) != 3 || !strings.Contains(plan.Text(), "127.0.0.1:10249/proxyMode") ||
		!strings.Contains(plan.Text(), ":10256/healthz") || !strings.Contains(plan.Text(), "has its name") {
		t.Errorf("beside a kube-proxy that runs the plan is:\n%s", plan.Text())
	}
	if host.Remove(t.Context(), plan) == nil {
		t.Error("a plan with refusals was carried out")
	}
	seesItWrite(t, change)
	proxy.Kill()
	inv = looked(t)
	if plan = foreign.Decide(inv, false); len(plan.Refusals) != 1 || len(inv.Running) > 0 ||
		!strings.Contains(plan.Text(), "kube-proxy in "+mode+" mode has rules") {
		t.Errorf("beside the rules of a kube-proxy that is gone the plan is:\n%s\n%v", plan.Text(), inv.Running)
	}
	if plan = foreign.Decide(inv, true); len(plan.Refusals) > 0 || len(plan.Steps) != 1 || len(plan.Left) > 0 {
		t.Fatalf("the take-over is:\n%s", plan.Text())
	}
	var existing []func()
	for _, to := range []string{front4, front6, nodeV4 + ":30080", "[" + nodeV6 + "]:30080"} {
		existing = append(existing, stays(t, to))
	}
	c := startClients(t)
	time.Sleep(200 * time.Millisecond)
	loadOurs(t, 8080)
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	check(t, host.Remove(t.Context(), plan))
	t.Logf("removed in %v", time.Since(start))
	time.Sleep(500 * time.Millisecond)
	c.stop(t)
	for _, lives := range existing {
		lives()
	}

	if p := foreign.Decide(looked(t), false); !p.Nothing() {
		t.Errorf("after the take-over the plan is:\n%s", p.Text())
	}
	// iptables leaves the tables and the chains of its hooks that it added, empty.
	left := slices.DeleteFunc(rules(t), func(line string) bool {
		return !strings.Contains(line, "KUBE") || strings.Contains(line, "FIREWALL")
	})
	if len(left) > 0 {
		t.Errorf("left of kube-proxy:\n%s", strings.Join(left, "\n"))
	}
	after := rules(t)
	for _, line := range before {
		if i := slices.Index(after, line); i >= 0 {
			after = slices.Delete(after, i, i+1)
			continue
		}
		t.Errorf("a line of another program is gone: %s", line)
	}
}

// The rules of iptables-legacy stay until somebody carries out the recipe. Until then new connections meet
// our rules first.
func TestTheTakeOverFromIptablesLegacy(t *testing.T) {
	kubeProxyProgram(t)
	inside.Run(t, func(t *testing.T) {
		here(t)
		dir := t.TempDir()
		for _, p := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
			legacy, err := exec.LookPath(strings.Replace(p, "tables", "tables-legacy", 1))
			if err != nil && os.Getenv("CI") != "true" {
				t.Skip(err)
			}
			check(t, err)
			check(t, os.Symlink(legacy, filepath.Join(dir, p)))
		}
		for p, from := range map[string]string{"iptables-legacy": "192.0.2.1", "ip6tables-legacy": "2001:db8::1"} {
			out, err := exec.Command(p, "-t", "nat", "-A", "POSTROUTING", "-s", from, "-j", "ACCEPT").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		proxy, _ := startHere(t, "iptables", "PATH="+dir+":"+os.Getenv("PATH"))
		proxy.Kill()
		inv := looked(t)
		if p := foreign.Decide(inv, false); len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Why, "iptables-legacy") {
			t.Errorf("beside the rules the plan is:\n%s", p.Text())
		}
		plan := foreign.Decide(inv, true)
		if len(plan.Refusals)+len(plan.Steps) > 0 || len(plan.Left) != 4 {
			t.Fatalf("the take-over is:\n%s", plan.Text())
		}
		for _, to := range []string{front4, front6} {
			if got := reached(to); got != "8080" {
				t.Errorf("by the rules of kube-proxy %s is %s", to, got)
			}
		}
		loadOurs(t, 8081)
		check(t, host.Remove(t.Context(), plan))
		for _, to := range []string{front4, front6, nodeV4 + ":30080", "[" + nodeV6 + "]:30080"} {
			if got := reached(to); got != "8081" {
				t.Errorf("beside the rules of kube-proxy %s is %s, want our backend", to, got)
			}
		}
		for _, l := range plan.Left {
			_, recipe, _ := strings.Cut(l.Cure, "\n")
			cmd := exec.Command("sh", "-e")
			cmd.Stdin = strings.NewReader(recipe)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, recipe)
			}
		}
		if p := foreign.Decide(looked(t), false); !p.Nothing() {
			t.Errorf("after the recipe the plan is:\n%s", p.Text())
		}
		out, err := exec.Command("iptables-legacy-save").CombinedOutput()
		check(t, err)
		if text := string(out); !strings.Contains(text, "-s 192.0.2.1/32 -j ACCEPT") || strings.Contains(text, "KUBE-SERVICES") {
			t.Errorf("after the recipe:\n%s", text)
		}
	})
}
