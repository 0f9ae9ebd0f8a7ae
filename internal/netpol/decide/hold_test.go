// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Who waits for a look at the connections from before it, and what the kernel gets
// of it meanwhile (ADR 0012).
func TestWhoIsHeld(t *testing.T) {
	const a = "10.0.0.5"
	before := letting(nil, openPod("10.0.0.1", "db"), openPod(a, "last"))
	without := letting(nil, openPod("10.0.0.1", "db"))
	next := letting(nil, openPod("10.0.0.1", "db"), openPod(a, "next"))
	for _, c := range []struct {
		name    string
		was, is *program.Program
		options Options
		alter   func(s *scene)
		held    bool
		listed  bool // the kernel gets the address
	}{
		{"a new pod", without, next, Options{}, nil, true, false},
		{"a new pod of which nothing is left from before", without, next, Options{}, func(s *scene) { s.looked(next) },
			false, true},
		{"the same by another interface", without, next, Options{}, func(s *scene) { s.w.Clean[at(a)] = Search{Link: 7} }, true,
			false},
		{"a new pod where nobody looks beside the loop", without, next, Options{},
			func(s *scene) { s.w.Searching = false }, false, true},
		{"a new pod where unknown pods are open", without, next, Options{OpenUnknown: true}, nil, false, true},
		{"a new pod on a bridge with an uplink", without, next, Options{}, uplink(a), false, true},
		{"a pod that stays", before, letting(nil, pod("10.0.0.1", "db"), pod(a, "last")), Options{}, nil, false, true},
		{"an address that moves", before, next, Options{}, nil, true, false},
		{"an address that moves and is clean", before, next, Options{}, func(s *scene) { s.looked(next) }, true, false},
		{"an address that moves where unknown pods are open", before, next, Options{OpenUnknown: true}, nil, true,
			true},
		{"an address that moves on a bridge with an uplink", before, next, Options{}, uplink(a), true, true},
		{"the next pod of the same name", before, letting(nil, openPod("10.0.0.1", "db"),
			program.Pod{Addr: at(a), Name: "shop/last", ID: "another", Tenant: "shop"}), Options{}, nil, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(c.options).settle(c.was)
			s.wire(c.is)
			if c.alter != nil {
				c.alter(s)
			}
			out := s.commit(c.is)
			if held := slices.Contains(out.Held.Addrs, at(a)); held != c.held || Owns(out.Known, at(a)) == c.held {
				t.Errorf("held is %t, known %t; want %t and %t", held, Owns(out.Known, at(a)), c.held, !c.held)
			}
			got, listed := podAt(out.Program, at(a))
			if listed != c.listed {
				t.Errorf("the kernel gets %v", addrsOf(out.Program))
			}
			if listed && c.held && (!closedByHold(got) || got.Egress == "") {
				t.Errorf("the pod that is held is judged by %q and %q", got.Ingress, got.Egress)
			}
			if db, there := podAt(out.Program, at("10.0.0.1")); !there || closedByHold(db) {
				t.Errorf("another pod is %+v, there: %t", db, there)
			}
		})
	}
}

// uplink makes the pod's interface a bridge that also leads out of the node.
func uplink(addr string) func(s *scene) {
	return func(s *scene) {
		s.w.Paths[at(addr)] = inet.Path{Index: 3, Link: "br0", Bridge: true, Uplink: true, Port: "veth"}
	}
}

// A pod that was held is programmed by the decision after the look, and by none
// before. Who began with it in the table of an earlier process is not held.
func TestAHeldPodComesAfterItsLook(t *testing.T) {
	p := letting(nil, openPod("10.0.0.1", "db"))
	s := newScene(Options{}).settle(letting(nil))
	s.wire(p)
	for range 3 {
		if out := s.commit(p); len(out.Held.Addrs) != 1 ||
			out.Held.Link[at("10.0.0.1")] != linkOf(at("10.0.0.1")).Index {
			t.Fatalf("held are %+v", out.Held)
		}
	}
	s.looked(p)
	if out := s.commit(p); len(out.Held.Addrs) > 0 || !slices.Contains(out.Held.Added, at("10.0.0.1")) ||
		out.Program != p {
		t.Errorf("after the look: %+v", out.Held)
	}
	if out := s.commit(p); len(out.Held.Addrs)+len(out.Held.Added) > 0 {
		t.Errorf("in the end: %+v", out.Held)
	}

	again := newScene(Options{}).wire(p)
	again.w.Recorded = []program.Pod{{Addr: at("10.0.0.1"), Name: "shop/db", ID: "db"}}
	if out := again.commit(p); len(out.Held.Addrs) > 0 {
		t.Errorf("the next process holds %v", out.Held.Addrs)
	}
	other := newScene(Options{}).wire(p)
	other.w.Recorded = []program.Pod{{Addr: at("10.0.0.1"), Name: "shop/last", ID: "last"}}
	if out := other.commit(p); len(out.Held.Addrs) != 1 {
		t.Error("the next process does not hold a pod whose address was another's")
	}
}

// Closing pods by chains changes nobody else and no chain that is there.
func TestPodsAreClosedByChainsOfTheirOwn(t *testing.T) {
	p := letting([]string{"10.0.0.9"}, pod("10.0.0.1", "a"), openPod("10.0.0.2", "b"))
	p.Pods = append(p.Pods, openPod("fd00::1", "b"))
	closed := ClosedFor(p, "left-", func(pod program.Pod) bool { return pod.Name == "shop/b" })
	var names []string
	for _, c := range closed.Chains {
		names = append(names, c.Name)
		if c != p.Chains[0] && len(c.Rules) > 0 {
			t.Errorf("chain %s allows something", c.Name)
		}
	}
	if want := []string{"ingress4-web", "left-egress4", "left-egress6", "left-ingress4",
		"left-ingress6"}; !slices.Equal(names, want) {
		t.Errorf("the chains are %v, want %v", names, want)
	}
	if closed.Pods[0] != p.Pods[0] || closed.Pods[1].Ingress != "left-ingress4" ||
		closed.Pods[2].Egress != "left-egress6" ||
		p.Pods[1].Ingress != "" {
		t.Errorf("the pods are %+v, of %+v", closed.Pods, p.Pods)
	}
}
