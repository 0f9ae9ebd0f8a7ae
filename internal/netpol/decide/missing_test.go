// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

func TestPodsThatCannotBeFoundAreReportedAfterAWhile(t *testing.T) {
	start := time.Unix(0, 0)
	addr := netip.MustParseAddr
	p := &program.Program{Pods: []program.Pod{
		{Addr: addr("10.0.0.1"), Name: "a/isolated", Ingress: "x"},
		{Addr: addr("10.0.0.2"), Name: "a/open"},
		{Addr: addr("10.0.0.3"), Name: "a/here", Egress: "y"},
		{Addr: addr("10.0.0.4"), Name: "a/bridged"},
		{Addr: addr("10.0.0.5"), Name: "a/macvlan", Ingress: "x"},
		{Addr: addr("10.0.0.6"), Name: "a/macvlan-open"},
		{Addr: addr("10.0.0.7"), Name: "a/claimed", Ingress: "x"},
	}}
	bridge := inet.Path{Link: "cni0", Bridge: true}
	paths := map[netip.Addr]inet.Path{addr("10.0.0.3"): {Link: "veth3"}, addr("10.0.0.4"): bridge,
		addr("10.0.0.5"): {Link: "eth0", Bypassed: true}, addr("10.0.0.6"): {Link: "eth0", Bypassed: true}}
	d := New(Options{})
	unclear := map[netip.Addr]string{addr("10.0.0.7"): "the ports a, b have it"}
	look := func(now time.Time) []Problem {
		return d.lookForPods(p, Wiring{Now: now, Paths: paths, Unclear: unclear})
	}
	if look(start); look(start.Add(Grace-1)) != nil {
		t.Error("a problem within the grace")
	}
	got := look(start.Add(Grace))
	if len(got) != 4 || !got[0].Blocking || !got[1].Blocking || !got[2].Blocking || got[3].Blocking {
		t.Fatalf("after the Grace: %+v, want four problems", got)
	}
	for i, want := range []string{"a/macvlan (10.0.0.5)", "a/claimed (10.0.0.7: the ports a, b have it)",
		"a/isolated (10.0.0.1)", "a/bridged (10.0.0.4)"} {
		if !strings.HasSuffix(got[i].Text, ": "+want) {
			t.Errorf("after the Grace: %q, want it to name %s alone", got[i].Text, want)
		}
	}
	bridge.Port = "veth4"
	clear(unclear)
	paths[addr("10.0.0.7")] = inet.Path{Link: "veth7"}
	paths[addr("10.0.0.1")], paths[addr("10.0.0.4")] = inet.Path{Link: "veth1"}, bridge
	paths[addr("10.0.0.5")] = inet.Path{Link: "veth5"}
	if got := look(start.Add(2 * Grace)); got != nil || len(d.unreached)+len(d.unbound)+len(d.bypassed) != 0 {
		t.Errorf("once they are there: %+v, want nothing", got)
	}
}

// The Grace is a pod's own: the next one with the address begins anew.
func TestTheNextPodWithAnAddressHasAGraceOfItsOwn(t *testing.T) {
	start, a := time.Unix(0, 0), netip.MustParseAddr("10.0.0.1")
	always := func(program.Pod) bool { return true }
	of := func(name, id string) *program.Program {
		return &program.Program{Pods: []program.Pod{{Addr: a, Name: name, ID: id}}}
	}
	m := missing{}
	for i, tt := range []struct {
		program *program.Program
		since   time.Duration
	}{
		{of("a/first", "1"), 0},
		{of("a/first", "1"), 0},
		{of("a/second", "2"), 2 * time.Second},
		{of("a/second", "3"), 3 * time.Second},
		{of("a/second", "3"), 3 * time.Second},
	} {
		m.update(tt.program, always, start.Add(time.Duration(i)*time.Second))
		if got := m[a].since.Sub(start); got != tt.since {
			t.Errorf("step %d: missing since %v, want %v", i, got, tt.since)
		}
	}
}

// What is missing is looked for at doubling pauses, and at the end of the Grace: so
// a problem is said when it is one and not a period later.
func TestWhatIsMissingIsLookedForUntilTheEndOfTheGrace(t *testing.T) {
	start := time.Unix(0, 0)
	pod := netip.MustParseAddr("10.0.0.1")
	d := &Decider{unreached: missing{pod: lostPod{name: "a/b", since: start}}}
	var looks []time.Duration
	now := start
	for after := d.nextLook(Wiring{Now: now}); after > 0; after = d.nextLook(Wiring{Now: now}) {
		now = now.Add(after)
		looks = append(looks, now.Sub(start))
	}
	if len(looks) > 12 || looks[0] != firstLook || looks[len(looks)-1] != Grace {
		t.Errorf("looks after %v, want a few from %v to %v", looks, firstLook, Grace)
	}
}

// A new port that has no address yet is asked again before a container can run.
func TestANewPortIsAskedAgainSoon(t *testing.T) {
	start := time.Unix(0, 0)
	d := &Decider{unreached: missing{netip.MustParseAddr("10.0.0.1"): lostPod{name: "a/b", since: start}}}
	if after := d.nextLook(Wiring{Now: start, RetryPorts: 10 * time.Millisecond}); after != 10*time.Millisecond {
		t.Errorf("looks after %v, want 10 ms", after)
	}
}

// Where a route leads to the bridge the pod is enforced whatever port it is at, so what
// its neighbours do to it must not make the node unready.
func TestAContestedPortCutsAPodAndNoNode(t *testing.T) {
	pod := program.Pod{Addr: netip.MustParseAddr("10.0.0.1"), Name: "a/b", Ingress: "x"}
	for _, tt := range []struct {
		what     string
		path     inet.Path
		blocking bool
	}{{UnsureContested, inet.Path{Bridge: true}, false}, {UnsureUnclear, inet.Path{}, true}} {
		d, p := New(Options{}), &program.Program{Pods: []program.Pod{pod}}
		w := Wiring{Now: time.Unix(0, 0), Paths: map[netip.Addr]inet.Path{},
			Unclear: map[netip.Addr]string{pod.Addr: "the ports a, b have it"}}
		if tt.path.Bridge {
			w.Paths[pod.Addr] = tt.path
		}
		d.lookForPods(p, w)
		if got := d.unsure(); got[tt.what] != 1 || got[UnsureUnbound]+got[UnsureUnreached] > 0 {
			t.Errorf("unsure is %v, want one %s", got, tt.what)
		}
		w.Now = w.Now.Add(Grace)
		got := d.lookForPods(p, w)
		if len(got) != 1 || got[0].Blocking != tt.blocking || !strings.Contains(got[0].Text,
			"a/b (10.0.0.1: the ports a, b have it)") {
			t.Errorf("%s: %+v, want one problem, blocking %t", tt.what, got, tt.blocking)
		}
	}
}

// A pod whose address a route leads elsewhere has one problem, which does not block.
func TestAPodThatARouteLeadsElsewhereIsNoHole(t *testing.T) {
	pod := program.Pod{Addr: netip.MustParseAddr("10.0.0.1"), Name: "a/b", Ingress: "x"}
	now := time.Unix(0, 0)
	d := New(Options{})
	d.misled = missing{pod.Addr: lostPod{name: "a/b", since: now}}
	if got := d.lookForPods(&program.Program{Pods: []program.Pod{pod}}, Wiring{Now: now}); got != nil ||
		len(d.unreached) != 0 {
		t.Errorf("%v, %v: want nothing", got, d.unreached)
	}
}
