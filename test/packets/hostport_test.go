// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// hostPort is the port of node1 that leads to the victim's port 80.
const hostPort = 8081

// plugins is the directory of the CNI plugins, with portmap.
func plugins(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("PODWALL_CNI_BIN")
	if dir == "" {
		dir = "../../bin/cni"
	}
	if _, err := os.Stat(filepath.Join(dir, "portmap")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("the CNI plugins are not built: run `make cni`, or set PODWALL_CNI_BIN")
	}
	dir, err := filepath.Abs(dir)
	stage.Check(t, err)
	return dir
}

// mapPort runs the plugin portmap for the victim, as the last of the plugins that wired it (CNI
// specification 1.0.0).
func (w *world) mapPort(t *testing.T, backend string) {
	t.Helper()
	e := w.Endpoint(t, victim)
	type values = map[string]any
	ips := []values{}
	for _, a := range e.Addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		ips = append(ips, values{"address": netip.PrefixFrom(a, bits), "interface": 0})
	}
	config, err := json.Marshal(values{"cniVersion": "1.0.0", "name": "lab", "type": "portmap", "backend": backend,
		"snat":          true,
		"runtimeConfig": values{"portMappings": []values{{"hostPort": hostPort, "containerPort": 80, "protocol": "tcp"}}},
		"prevResult": values{"cniVersion": "1.0.0", "interfaces": []values{{"name": "eth0", "sandbox": e.NS.Path()}},
			"ips": ips}})
	stage.Check(t, err)
	cmd := exec.Command(filepath.Join(w.Setup.CNIBin, "portmap"))
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(config)), &out, &out
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=victim", "CNI_NETNS=" + e.NS.Path(), "CNI_IFNAME=eth0",
		"CNI_PATH=" + w.Setup.CNIBin, "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
	err = w.NS(t, node1).Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("running portmap: %v\n%s", err, &out)
	}
}

// call sends a question to the port of node1.
func (w *world) call(t *testing.T, from string, v6 bool) trial.Question {
	t.Helper()
	return trial.Question{From: from, To: victim, Dst: w.Addr(t, node1, v6), Proto: packet.TCP, Port: hostPort}
}

// outside allows the host outside to reach one port of the victim.
func outside(port string) string {
	return stage.Policy("outside", "victim", `policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 203.0.113.10/32}}, {ipBlock: {cidr: "2001:db8:cafe::a/128"}}], ports: [{port: `+port+`}]}]`)
}

func TestAHostPortIsJudgedWithTheClientsAddressAndThePodsPort(t *testing.T) {
	bin := plugins(t)
	for _, tt := range []struct {
		backend, datapath string
		wiring            lab.Wiring
	}{{"nftables", "nat", lab.CNIBridge}, {"iptables", "nat", lab.CNIPtp}, {"iptables", "filter", lab.CNIBridge}} {
		t.Run(tt.backend+" "+tt.datapath+" "+string(tt.wiring), func(t *testing.T) {
			w := &world{stage.New(t, tt.wiring, stage.Setup{CNIBin: bin, Args: []string{"--datapath=" + tt.datapath}})}
			w.mapPort(t, tt.backend)
			stage.Families(t, func(t *testing.T, v6 bool) { w.hostPort(t, v6) })
		})
	}
}

func (w *world) hostPort(t *testing.T, v6 bool) {
	w.Enforce(t) // no policy
	w.Allowed(t, w.call(t, out, v6), w.call(t, node2, v6), w.call(t, far, v6))
	w.denyAll(t, outside("80"))
	got := w.One(t, probe.Probe{From: out, Dst: w.Addr(t, node1, v6), Proto: packet.TCP, DstPort: hostPort})
	if want := (probe.Arrival{ID: got.ID, Endpoint: victim, Proto: packet.TCP,
		Src: netip.AddrPortFrom(w.Addr(t, out, v6), got.Src.Port()),
		Dst: w.at(t, victim, v6, 80)}); got != want {
		t.Errorf("arrived as %+v, want %+v", got, want)
	}
	w.Denied(t, ruleset.CounterIngress, w.call(t, node2, v6), w.call(t, far, v6), w.call(t, near, v6))
	w.denyAll(t, outside("8081")) // the node's port, which no packet has at the pod
	w.Denied(t, ruleset.CounterIngress, w.call(t, out, v6))
	w.Denied(t, ruleset.CounterEgress, w.call(t, jailed, v6))
	w.Allowed(t, w.call(t, node1, v6))
	if !v6 { // there is no way from ::1 to another address
		local := w.call(t, node1, v6)
		local.Src, local.Dst = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
		w.Allowed(t, local)
	}
}
