// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// With the default options, and before it is known where a pod is, the node is the zero
// value: what tests and podwall-lab render is what an agent loads.
func TestTheDefaultNodeIsTheZeroValue(t *testing.T) {
	empty := &program.Program{}
	if n := New(Options{DeniedGroup: 7}).Wire(empty, empty, Wiring{}).Node; n.DeniedGroup != 7 {
		t.Errorf("denied packets go to group %d, want 7", n.DeniedGroup)
	}
	d := New(Options{DeniedGroup: 7})
	d.Unrecorded = "no such expression"
	out := d.Wire(empty, empty, Wiring{})
	if n := out.Node; n.DeniedGroup != 0 || d.Records() {
		t.Errorf("denied packets go to group %d, although the kernel refuses that", n.DeniedGroup)
	}
	if len(out.Problems) != 1 || out.Problems[0].Blocking || !strings.Contains(out.Problems[0].Text, d.Unrecorded) {
		t.Errorf("problems = %+v, want one that does not block", out.Problems)
	}
	if diff := cmp.Diff(program.Node{}, New(Options{}).Wire(empty, empty, Wiring{}).Node,
		cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the zero value (-) is not what a default node loads (+):\n%s", diff)
	}
}

func TestWhichChainsJudgeAndWhetherTheyAreGuarded(t *testing.T) {
	for _, c := range []struct {
		name     string
		options  Options
		others   Others
		forced   bool
		filter   bool
		guard    bool
		why      string
		subjects []string
	}{
		{"nothing special", Options{}, Others{}, false, false, true, "no other table", nil},
		{"somebody drops invalid packets", Options{}, Others{DropsInvalid: true}, false, false, false, "another table",
			nil},
		{"and a pod is isolated for egress", Options{}, Others{DropsInvalid: true}, false, false, true, "ICMP errors",
			nil},
		{"and the guard is wanted", Options{Guard: GuardOn}, Others{DropsInvalid: true}, false, false, true, "=on",
			nil},
		{"the guard is not wanted", Options{Guard: GuardOff}, Others{}, false, false, false, "=off", nil},
		{"filter chains are wanted", Options{FilterHook: true}, Others{}, false, true, false, "not needed", nil},
		{"nat chains do not work", Options{}, Others{}, true, true, false, "not needed", nil},
		{"a nat chain before ours", Options{}, Others{NATBefore: []string{"theirs"}}, false, true, false, "not needed",
			[]string{"nat chain before ours"}},
		{"the same where filter chains are wanted", Options{FilterHook: true}, Others{NATBefore: []string{"theirs"}},
			false, true, false, "not needed", nil},
		{"a nat chain at prerouting, on a bridge", Options{}, Others{NATBeforeRouting: []string{"theirs"}}, false, true,
			false, "not needed", []string{"nat chain before ours"}},
		{"a nat chain at prerouting", Options{}, Others{NATBeforeRouting: []string{"theirs"}}, false, false, true,
			"no other table", nil},
		{"kube-router", Options{}, Others{KubeRouter: []string{"KUBE-POD-FW-A", "KUBE-NWPLCY-B"}}, false, false, true,
			"no other table", []string{"kube-router"}},
		{"iptables-legacy cannot be read", Options{}, Others{LegacyUnread: errors.New("refused")}, false, false, true,
			"no other table", []string{"iptables-legacy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(c.options)
			s.w.Others, s.d.Forced = c.others, c.forced
			s.w.AnyBridge = strings.HasSuffix(c.name, "on a bridge")
			p := letting(nil)
			if strings.Contains(c.name, "for egress") {
				jailed := openPod("10.0.0.9", "jailed")
				jailed.Egress = "egress4-web"
				p.Pods, s.w.Paths[jailed.Addr] = append(p.Pods, jailed), inet.Path{Index: 9, Link: "veth9"}
			}
			out := s.commit(p)
			if out.Filter != c.filter || out.Node.FilterHook != c.filter || out.Guard != c.guard ||
				!strings.Contains(out.GuardWhy, c.why) {
				t.Errorf("filter %t, guard %t (%s); want %t, %t (%s)", out.Filter, out.Guard, out.GuardWhy, c.filter,
					c.guard, c.why)
			}
			if got := subjects(out.Problems); !slices.Equal(got, c.subjects) {
				t.Errorf("problems with %v, want %v", got, c.subjects)
			}
		})
	}
}

// wired is a node with pods on every kind of interface.
func wired(o Options) (*scene, *program.Program) {
	p := letting(nil, pod("10.0.0.1", "routed"), openPod("10.0.0.2", "open"), pod("10.0.1.1", "bridged"),
		pod("10.0.2.1", "uplink"), pod("10.0.3.1", "nowhere"))
	p.Pods[2].Egress = "egress4-web"
	s := newScene(o)
	s.w.Paths[at("10.0.0.1")] = inet.Path{Index: 1, Link: "veth1"}
	s.w.Paths[at("10.0.0.2")] = inet.Path{Index: 2, Link: "veth2"}
	s.w.Paths[at("10.0.1.1")] = inet.Path{Index: 3, Link: "cni0", Bridge: true, Port: "port1"}
	s.w.Paths[at("10.0.2.1")] = inet.Path{Index: 4, Link: "br0", Bridge: true, Uplink: true, Port: "port2"}
	s.w.Bridges = []inet.Path{{Index: 3, Link: "cni0", Bridge: true}, {Index: 5, Link: "cni1", Bridge: true}}
	s.w.AnyBridge, s.w.RememberedBridges = true, []string{"cni9"}
	s.w.NodePorts = map[int][]string{4: {"gw1"}, 3: {"gw0"}}
	s.w.Ports = map[int][]string{3: {"gw0", "port1"}, 4: {"eth1", "gw1", "port2"}, 9: {"docker1"}}
	s.w.UplinkPorts = map[int][]string{4: {"eth1"}, 9: {"eth9"}}
	s.w.Own, s.w.Unclear = []netip.Addr{at("10.0.1.254")}, map[netip.Addr]string{at("10.0.1.9"): "two ports have it"}
	return s.looked(p), p
}

func TestTheRulesKnowHowPodsAreWired(t *testing.T) {
	s, p := wired(Options{})
	n := s.commit(p).Node
	at := func(list []program.Attachment) (names []string) {
		for _, a := range list {
			names = append(names, a.Link+" "+a.Addr.String()+" "+a.Port)
		}
		return names
	}
	if want := []string{"veth1 10.0.0.1 ", "veth2 10.0.0.2 ", "cni0 10.0.1.1 port1",
		"br0 10.0.2.1 port2"}; !slices.Equal(at(n.Ported), want) {
		t.Errorf("ported are %q, want %q", at(n.Ported), want)
	}
	if want := at(n.Ported)[:3]; !slices.Equal(at(n.Attached), want) {
		t.Errorf("attached are %q, want all but those on a bridge with an uplink", at(n.Attached))
	}
	for name, c := range map[string][2][]string{
		"open":            {n.Open, {"eth0"}},
		"ingress":         {n.Ingress, {"veth1", "cni0"}},
		"egress":          {n.Egress, {"cni0"}},
		"carried":         {n.ClosedBridges, {"cni9", "cni0", "cni1"}},
		"bridges of pods": {n.PodBridges, {"br0", "cni0", "cni1"}},
		"other ports":     {n.OtherPorts, {"docker1", "gw0", "gw1"}},
		"uplink ports":    {n.UplinkPorts, {"eth1"}},
		"owned":           {texts(n.Owned), {"10.0.1.254", "10.0.1.9"}},
	} {
		if !slices.Equal(c[0], c[1]) {
			t.Errorf("%s are %v, want %v", name, c[0], c[1])
		}
	}
	if n.OpenUnknown || !n.Bridges || n.Cut {
		t.Errorf("open %t, bridges %t, cut %t", n.OpenUnknown, n.Bridges, n.Cut)
	}
	if len(s.w.RememberedBridges) != 1 {
		t.Errorf("the facts were changed: %v", s.w.RememberedBridges)
	}
	s, p = wired(Options{OpenUnknown: true})
	if n := s.commit(p).Node; !n.OpenUnknown || !slices.Equal(n.ClosedBridges, []string{"cni9"}) {
		t.Errorf("where unknown pods are open: open %t, carried %v", n.OpenUnknown, n.ClosedBridges)
	}
}

// Bridges of pods show their packets; on a closed node also those that may get pods.
// A pod that the routes do not lead to is closed on its interface all the same.
func TestWhichBridgesShowTheirPackets(t *testing.T) {
	names := func(list []inet.Path) (names []string) {
		for _, b := range list {
			names = append(names, b.Link)
		}
		return names
	}
	for _, c := range []struct {
		options Options
		want    []string
	}{
		{Options{}, []string{"br0", "cni0", "cni1"}},
		{Options{OpenUnknown: true}, []string{"br0", "cni0"}},
		{Options{Guard: GuardOff}, []string{"br0", "cni0", "cni1"}},
	} {
		s, p := wired(c.options)
		out := s.commit(p)
		if got := names(out.Bridges); !slices.Equal(got, c.want) || !slices.Equal(out.Node.PodBridges, c.want) {
			t.Errorf("%+v: bridges %v, addresses bound on %v; want both %v", c.options, got, out.Node.PodBridges,
				c.want)
		}
		said := subjects(out.Problems)
		for _, want := range []string{"bridge br0", "node's port of br0", "node's port of cni0"} {
			if !slices.Contains(said, want) {
				t.Errorf("problems with %v, want one with %s", said, want)
			}
		}
	}
	if out := newScene(Options{}).commit(letting(nil)); len(out.Bridges)+len(out.Node.PodBridges) > 0 {
		t.Errorf("on a node without bridges: %v, %v", out.Bridges, out.Node.PodBridges)
	}
}
