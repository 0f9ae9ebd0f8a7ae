// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/lab/netns"
)

// keeper is an agent that knows no pod whose name begins with "un".
type keeper struct {
	mu   sync.Mutex // guards pods
	pods map[string]gate.Pod
}

func (k *keeper) Announce(ctx context.Context, p gate.Pod) error {
	k.mu.Lock()
	k.pods[p.Sandbox] = p
	k.mu.Unlock()
	if strings.HasPrefix(p.Name, "un") {
		<-ctx.Done()
		return gate.ErrUnknown
	}
	return nil
}

func (k *keeper) Off() {}

func (k *keeper) Withdraw(sandbox string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, sandbox)
}

func (k *keeper) Announced() (list []gate.Known) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		list = append(list, gate.Known{Pod: p, State: gate.Enforced})
	}
	return list
}

// texts says which sandboxes are announced, with their addresses.
func (k *keeper) texts() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	for _, p := range k.pods {
		list = append(list, fmt.Sprintf("%s %s/%s %s %v", p.Sandbox, p.Namespace, p.Name, p.UID, p.IPs))
	}
	slices.Sort(list)
	return list
}

// node is a runtime with the plugin, and an agent.
type node struct {
	t      *testing.T
	dir    string
	agent  *keeper
	stop   func() // the agent
	plugin *Plugin
	wire   *wire
	runs   []*api.PodSandbox
}

func newNode(t *testing.T, change func(*Plugin)) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "nri-") // short enough for a socket
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a directory for temporary files
	n := &node{t: t, dir: dir}
	n.startAgent()
	n.wire = newWire(t, filepath.Join(dir, "wire.sock"), filepath.Join(dir, "nri.sock"))
	n.plugin = &Plugin{Gate: gate.Client{Socket: filepath.Join(dir, "gate.sock")}, Socket: filepath.Join(dir, "wire.sock"), Timeout: 200 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(n.plugin)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		n.plugin.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) startAgent() {
	n.t.Helper()
	n.agent = &keeper{pods: map[string]gate.Pod{}}
	s := &gate.Server{Keeper: n.agent, Log: slog.New(slog.DiscardHandler), Owner: uint32(os.Getuid())}
	check(n.t, s.Listen(filepath.Join(n.dir, "gate.sock")))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		s.Run(ctx)
		close(done)
	}()
	n.stop = func() { cancel(); <-done }
	n.t.Cleanup(n.stop)
}

// startRuntime starts the library that containerd and CRI-O are built with, and
// returns when the plugin is connected.
func (n *node) startRuntime() *adaptation.Adaptation {
	n.t.Helper()
	synced := make(chan struct{}, 16)
	r, err := adaptation.New("test", "v2.1.0", func(ctx context.Context, f adaptation.SyncCB) error {
		_, err := f(ctx, n.runs, nil)
		synced <- struct{}{}
		return err
	}, func(context.Context, []*adaptation.ContainerUpdate) ([]*adaptation.ContainerUpdate, error) {
		return nil, nil
	},
		adaptation.WithSocketPath(n.wire.runtime), adaptation.WithPluginPath(filepath.Join(n.dir, "plugins")), adaptation.WithPluginConfigPath(filepath.Join(n.dir, "conf.d")))
	check(n.t, err)
	check(n.t, r.Start())
	n.t.Cleanup(r.Stop)
	<-synced                      // with the plugins that it started itself, none
	<-synced                      // with ours
	r.BlockPluginSync().Unblock() // which waits until the plugin is in the list
	return r
}

// await waits until the agent knows exactly these sandboxes.
func (n *node) await(want ...string) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !slices.Equal(n.agent.texts(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("announced are %q, want %q", n.agent.texts(), want)
		}
	}
}

// pod is a sandbox as a runtime describes it.
func pod(id, name, netns string, ips ...string) *api.PodSandbox {
	s := &api.PodSandbox{Id: id, Name: name, Namespace: "shop", Uid: "u-" + name, Ips: ips, Linux: &api.LinuxPodSandbox{
		Namespaces: []*api.LinuxNamespace{{Type: "ipc", Path: "/proc/1/ns/ipc"}}}}
	if netns != "" {
		s.Linux.Namespaces = append(s.Linux.Namespaces, &api.LinuxNamespace{Type: "network", Path: netns})
	}
	return s
}

// place makes a file where a sandbox's network namespace would be.
func (n *node) place(name string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	check(n.t, os.WriteFile(path, nil, 0o600))
	return path
}

func run(n *node, r *adaptation.Adaptation, s *api.PodSandbox) error {
	return r.RunPodSandbox(n.t.Context(), &api.RunPodSandboxRequest{Pod: s})
}

func TestASandboxIsAnnouncedBeforeItRunsAndWithdrawnWhenItStops(t *testing.T) {
	n := newNode(t, nil)
	r := n.startRuntime()
	check(t, run(n, r, pod("s1", "web", "/run/netns/none", "10.0.0.1", "fd00::1")))
	check(t, run(n, r, pod("s2", "host", "")))
	check(t, run(n, r, pod("s3", "db", "/run/netns/none", "10.0.0.3")))
	if want := []string{"s1 shop/web u-web [10.0.0.1 fd00::1]", "s3 shop/db u-db [10.0.0.3]"}; !slices.Equal(n.agent.texts(), want) {
		t.Errorf("announced are %q, want %q", n.agent.texts(), want)
	}
	check(t, r.StopPodSandbox(t.Context(), &api.StopPodSandboxRequest{Pod: pod("s1", "web", "")})) // no network, no addresses any more
	check(t, r.RemovePodSandbox(t.Context(), &api.RemovePodSandboxRequest{Pod: pod("s3", "db", "")}))
	if got := n.agent.texts(); len(got) > 0 {
		t.Errorf("announced are %q, want none", got)
	}
}

// Runtimes before containerd 2.1 do not say the addresses.
func TestAddressesAreLookedUpInTheSandbox(t *testing.T) {
	inside, err := netns.New()
	check(t, err)
	t.Cleanup(func() { check(t, inside.Close()) })
	h, err := netlink.NewHandleAt(vnetns.NsHandle(inside.FD()))
	check(t, err)
	defer h.Close()
	check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}))
	link, err := h.LinkByName("eth0")
	check(t, err)
	check(t, h.LinkSetUp(link))
	for _, text := range []string{"10.0.0.7/24", "fd00::7/64", "127.0.0.9/8"} {
		prefix := netip.MustParsePrefix(text)
		a, err := netlink.ParseAddr(prefix.String())
		check(t, err)
		check(t, h.AddrAdd(link, a))
	}
	n := newNode(t, nil)
	r := n.startRuntime()
	check(t, run(n, r, pod("s1", "web", inside.Path())))
	n.await("s1 shop/web u-web [10.0.0.7 fd00::7]")
	if got := n.agent.Announced()[0].Pod; len(got.Links) > 0 {
		t.Errorf("links %v of a pair that does not end here", got.Links)
	}
	if err := run(n, r, pod("s2", "web", "/run/netns/none")); err != nil {
		t.Errorf("a sandbox without addresses does not start: %v", err)
	}
	n.await("s1 shop/web u-web [10.0.0.7 fd00::7]")
}

func TestASandboxThatIsNotKnownInTime(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		n := newNode(t, func(p *Plugin) { p.Refuse = refuse })
		r := n.startRuntime()
		start := time.Now()
		err := run(n, r, pod("s1", "unknown", "/run/netns/none", "10.0.0.1"))
		if (err != nil) != refuse || time.Since(start) < 100*time.Millisecond {
			t.Errorf("refuse %t: error %v after %s", refuse, err, time.Since(start))
		}
		check(t, run(n, r, pod("s2", "web", "/run/netns/none", "10.0.0.2"))) // the plugin is still there
	}
}

// However long the plugin may wait: the runtime drops one that takes two
// seconds, and then knows nothing of us any more.
func TestTheRuntimesLimitIsKept(t *testing.T) {
	n := newNode(t, func(p *Plugin) { p.Timeout = time.Minute })
	r := n.startRuntime()
	for range 2 {
		check(t, run(n, r, pod("s1", "unknown", "/run/netns/none", "10.0.0.1")))
	}
	check(t, run(n, r, pod("s2", "web", "/run/netns/none", "10.0.0.2")))
	n.await("s1 shop/unknown u-unknown [10.0.0.1]", "s2 shop/web u-web [10.0.0.2]")
}

func TestASandboxIsClosedBeforeTheAgentIsTold(t *testing.T) {
	var order []string
	var broken error
	var n *node
	n = newNode(t, func(p *Plugin) {
		p.Skeleton = func(_ context.Context, _ []string, addrs []netip.Addr) error {
			order = append(order, fmt.Sprint(addrs, len(n.agent.texts())))
			return broken
		}
	})
	r := n.startRuntime()
	check(t, run(n, r, pod("s1", "web", "/run/netns/none", "10.0.0.1")))
	broken = errors.New("no nftables") // an agent that enforces the pod makes that good
	check(t, run(n, r, pod("s2", "web", "/run/netns/none", "10.0.0.2")))
	if want := []string{"[10.0.0.1] 0", "[10.0.0.2] 1"}; !slices.Equal(order, want) {
		t.Errorf("closed addresses, and how many the agent knew: %q, want %q", order, want)
	}
	if err := run(n, r, pod("s3", "unknown", "/run/netns/none", "10.0.0.3")); err == nil || !strings.Contains(err.Error(), "would start open") {
		t.Errorf("a sandbox that nobody closed: %v", err)
	}
}

func TestWithoutAnAgentASandboxIsClosedBeforeItRuns(t *testing.T) {
	closed := 0
	n := newNode(t, func(p *Plugin) {
		p.Skeleton = func(context.Context, []string, []netip.Addr) error { closed++; return nil }
	})
	r := n.startRuntime()
	n.stop()
	check(t, run(n, r, pod("s1", "web", "/run/netns/none", "10.0.0.1")))
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
	n.startAgent()
	n.await("s1 shop/web u-web [10.0.0.1]") // the next agent is told
}

func TestARuntimeThatComesBackSaysWhatRuns(t *testing.T) {
	n := newNode(t, nil)
	time.Sleep(2 * firstRetry) // the plugin was there before the runtime
	r := n.startRuntime()
	b, c := n.place("b"), n.place("c")
	check(t, run(n, r, pod("gone", "a", "/run/netns/none", "10.0.0.1")))
	check(t, run(n, r, pod("stays", "b", b, "10.0.0.2")))
	r.Stop()
	n.wire.cut()
	n.runs = []*api.PodSandbox{pod("stays", "b", b, "10.0.0.2"), pod("new", "c", c, "10.0.0.3"), pod("host", "d", ""),
		pod("stopped", "a", "/run/netns/none", "10.0.0.1")}
	r = n.startRuntime()
	n.await("new shop/c u-c [10.0.0.3]", "stays shop/b u-b [10.0.0.2]")
	check(t, run(n, r, pod("s", "e", "/run/netns/none", "10.0.0.4")))
}

// containerd says nothing of the end of a sandbox that ran before it was started
// again.
func TestASandboxWhoseEndIsNotSaidIsWithdrawn(t *testing.T) {
	n := newNode(t, nil)
	n.runs = []*api.PodSandbox{pod("stops", "a", n.place("a"), "10.0.0.1"), pod("stays", "b", n.place("b"), "10.0.0.2")}
	r := n.startRuntime()
	check(t, run(n, r, pod("hidden", "c", "/run/netns/none", "10.0.0.3"))) // where we see no namespaces at all
	n.await("hidden shop/c u-c [10.0.0.3]", "stays shop/b u-b [10.0.0.2]", "stops shop/a u-a [10.0.0.1]")
	check(t, os.Remove(filepath.Join(n.dir, "a")))
	n.await("hidden shop/c u-c [10.0.0.3]", "stays shop/b u-b [10.0.0.2]")
	n.stop()
	n.startAgent() // the next agent is not told either
	n.await("hidden shop/c u-c [10.0.0.3]", "stays shop/b u-b [10.0.0.2]")
}
