// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/observe"
)

// IPVS takes a packet out of the node's input and sends it on as if the node
// had made it, so it passes neither the forward hook nor our chain at input.
// Who is judged as whom is as in the other modes.
func TestPoliciesHoldBesideKubeProxyInIPVSMode(t *testing.T) {
	kubeProxyProgram(t)
	needIPVS(t) // both skip before anything is built
	tests := []struct {
		name     string
		wiring   lab.Wiring
		datapath string
		guard    string
	}{
		{"routed", lab.Routed, "nat", "on"},
		{"bridge", lab.Bridge, "nat", "on"},
		{"filter chains", lab.Routed, "filter", "off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.wiring, "node1", "node2")
			asked := w.populateForServices(tt.wiring)
			first := w.agent("node1", "--datapath="+tt.datapath).ready() // the other one comes after kube-proxy
			w.kubeProxy("node1", "ipvs")
			w.kubeProxy("node2", "ipvs")
			second := w.agent("node2", "--datapath="+tt.datapath).ready()
			for _, a := range []*agent{first, second} {
				a.await("guard "+tt.guard, func() bool { return a.status().Datapath.Guard == tt.guard })
			}
			w.judgeServices("ipvs", first, asked)
			for _, node := range []string{"node1", "node2"} {
				w.ipvsCarries(node, asked)
			}
			w.untrackedIPVSIsSaid(first)
			w.stays("tracked again")
			for _, a := range []*agent{first, second} {
				s := a.status()
				if !s.Ready || s.DriftRepairs != 0 || len(s.Problems) > 0 || len(s.Diagnostics) > 0 {
					t.Errorf("%s: status at the end is %+v, want ready and nothing else to say", a.name, s)
				}
			}
		})
	}
}

// The same with the agents' own proxy on IPVS. A change of the back end and the end of the proxy leave nothing of
// IPVS behind.
func TestPoliciesHoldWithServicesByIPVS(t *testing.T) {
	needIPVS(t)
	for _, tt := range []struct {
		wiring   lab.Wiring
		datapath string
	}{{lab.Routed, "nat"}, {lab.Bridge, "nat"}} {
		t.Run(string(tt.wiring)+" "+tt.datapath, func(t *testing.T) {
			w := newWorld(t, tt.wiring, "node1", "node2")
			asked := w.populateForServices(tt.wiring)
			w.rangesOfPods()
			args := serving("--service-proxy-backend=ipvs", "--datapath="+tt.datapath)
			first, second := w.agent("node1", args...).ready(), w.agent("node2", args...).ready()
			w.judgeServices("by IPVS", first, asked)
			for i, a := range []*agent{first, second} {
				w.ipvsCarries([]string{"node1", "node2"}[i], asked)
				s := a.status()
				if !s.Ready || s.DriftRepairs != 0 || len(ofTheProxy(s)) > 0 || s.Services.DriftRepairs != 0 {
					t.Errorf("%s: status at the end is %+v, want ready and nothing else to say", a.name, s)
				}
			}
			first.Stop()
			first = w.agent("node1", serving("--datapath="+tt.datapath)...).ready()
			first.await("no virtual services after a change of the back end", func() bool { return w.virtualServices("node1") == 0 })
			w.judgeServices("by nftables", first, asked)
			second.Stop()
			second = w.agent("node2", "--datapath="+tt.datapath).ready()
			second.await("no virtual services without the proxy", func() bool { return w.virtualServices("node2") == 0 })
		})
	}
}

// An agent that is told to use IPVS where the kernel has none enforces policies, and is not ready.
func TestWithoutIPVSTheNodeIsNotReady(t *testing.T) {
	if hasIPVS(t) {
		t.Skip("this kernel has IPVS")
	}
	w := newWorld(t, lab.Routed, "node1", "node2")
	a := w.agent("node1", serving("--service-proxy-backend=ipvs")...)
	a.answers("/readyz", http.StatusServiceUnavailable)
	a.await("a problem that names the cure, and policies", func() bool {
		s := a.status()
		return s.Revision > 0 && slices.ContainsFunc(s.Problems, func(p observe.Problem) bool {
			return p.Blocking && strings.Contains(p.Cure, "modprobe ip_vs")
		})
	})
	a.answers("/readyz", http.StatusServiceUnavailable) // with policies, too
}

// ofTheProxy returns the problems but those of a small machine: nodes of the lab cannot set the size of its table.
func ofTheProxy(s observe.Status) []observe.Problem {
	return slices.DeleteFunc(withoutRoutes(s), func(p observe.Problem) bool {
		return strings.HasPrefix(p.Subject, "sysctl net.netfilter.nf_conntrack_")
	})
}

// virtualServices returns how many virtual services and addresses of Services a node has.
func (w *world) virtualServices(node string) (n int) {
	w.t.Helper()
	err := w.bed.Node(node).NS.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/ip_vs")
		for line := range strings.Lines(string(text)) {
			if protocol, _, _ := strings.Cut(line, " "); protocol == "TCP" || protocol == "UDP" {
				n++
			}
		}
		if err != nil {
			return err
		}
		const ours = 119 // the protocol of the routes
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			found, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Protocol: ours},
				netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
			if err != nil {
				return err
			}
			n += len(found)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// needIPVS skips on a kernel without IPVS.
func needIPVS(t *testing.T) {
	t.Helper()
	if !hasIPVS(t) {
		t.Skip("this kernel has no IPVS: run `make vm-ipvs`")
	}
}

func hasIPVS(t *testing.T) bool {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		_, err := os.Stat("/proc/thread-self/net/ip_vs")
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// ipvsCarries wants IPVS to know connections to the Services' own addresses
// and to ports of the node, by both protocols and in both families.
func (w *world) ipvsCarries(node string, asked map[flow]call) {
	w.t.Helper()
	var text []byte
	err := w.bed.Node(node).NS.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/ip_vs_conn")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 5 { // protocol, client, port, front, port, …
			known[f[0]+" "+f[3]+" "+f[4]] = true
		}
	}
	for f, c := range asked {
		home := c.at == "" && f.from.Node == node || c.at == node
		front := fmt.Sprintf("%s %s %04X", strings.ToUpper(f.proto.String()), inIPVS(f.dst), f.port)
		if home && !known[front] {
			w.t.Errorf("%s: IPVS of %s has no connection for it (%s)", f, node, front)
		}
	}
}

// inIPVS writes an address as the kernel's listing of connections does.
func inIPVS(a netip.Addr) string {
	if a.Is4() {
		return fmt.Sprintf("%X", a.AsSlice())
	}
	return a.StringExpanded()
}

// untrackedIPVSIsSaid has IPVS hide its packets from connection tracking, and
// so from our nat chains. The agent must not claim to enforce then.
func (w *world) untrackedIPVSIsSaid(a *agent) {
	w.t.Helper()
	w.trackIPVS("node1", "0")
	why := a.answers("/readyz", http.StatusServiceUnavailable)
	if !strings.Contains(why, "net.ipv4.vs.conntrack") {
		w.t.Errorf("/readyz says %q, want the setting that hides packets of IPVS", why)
	}
	w.trackIPVS("node1", "1")
	a.ready()
}

func (w *world) trackIPVS(node, value string) {
	w.t.Helper()
	err := w.bed.Node(node).NS.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/vs/conntrack", []byte(value), 0)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
