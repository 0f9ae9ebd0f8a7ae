// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/program"
)

func settings(t *rapid.T) Settings { return Settings(gen.ServiceSettings(t)) }

// apply and set are Apply and Set where nobody stops them.
func (x *Index) apply(d *cluster.ServiceDelta) {
	if err := x.Apply(context.Background(), d); err != nil {
		panic(err)
	}
}

func (x *Index) set(s Settings) {
	if err := x.Set(context.Background(), s); err != nil {
		panic(err)
	}
}

// Whoever stops the agent does not wait until all Services are computed.
func TestAChangeOfEveryServiceCanBeStopped(t *testing.T) {
	snap := many(1000, 0)
	for _, after := range []int{0, 1, 500, 1000, 1500} {
		x := NewIndex(Settings{})
		if err := x.Apply(&ends{Context: t.Context(), after: after}, all(snap)); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped after %d looks: %v", after, err)
		}
		if n := x.Model().IPv4.Routes.Len(); n > 0 {
			t.Errorf("stopped after %d looks, and %d Services are served", after, n)
		}
	}
}

// ends is a context that ends when it has been asked some times.
type ends struct {
	context.Context
	after int
}

func (e *ends) Err() error {
	if e.after--; e.after < 0 {
		return context.Canceled
	}
	return nil
}

// text returns everything that a model says.
func text(m *Model, found []cluster.Diagnostic) string {
	var b strings.Builder
	for _, f := range inet.Families {
		b.WriteString(m.Program(f).String())
	}
	fmt.Fprintf(&b, "health %v\n", m.Health)
	for _, d := range found {
		fmt.Fprintln(&b, d)
	}
	return b.String()
}

func TestStepsAgreeWithRecomputation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := settings(t)
		x, w := NewIndex(set), &gen.Services{}
		// With a small budget the Services of a namespace are in each other's way.
		x.budget = rapid.SampledFrom([]int{MaxNamespaceWeight, 40, 15}).Draw(t, "budget")
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.IntRange(1, 20).Draw(t, "other settings") == 1 {
				set = settings(t)
				x.set(set)
			}
			before := x.Model()
			old := text(before, nil)
			x.apply(w.Change(t))
			now := x.Model()
			want, found := resolveWithin(x.budget, w.Snapshot(t), set)
			if got, want := text(now, x.Diagnostics()), text(want, found); got != want {
				t.Fatalf("the index has\n%s\nrecomputation\n%s", got, want)
			}
			if snap := w.Snapshot(t); x.Len() != len(snap.Services) ||
				!slices.Equal(x.WithoutEndpoints(), withoutEndpoints(x.budget, snap, set)) {
				t.Fatalf("%d Services, without endpoints %v", x.Len(), x.WithoutEndpoints())
			}
			if text(before, nil) != old {
				t.Fatal("a published program changed")
			}
			for _, f := range inet.Families {
				if err := now.Program(f).Check(); err != nil {
					t.Fatal(err)
				}
			}
		}
		x.checkEmpty(t, w)
	})
}

// withoutEndpoints finds the Services without a backend: it changes nothing if their endpoints serve no longer.
// Those that the budget leaves out do not count.
func withoutEndpoints(budget int, snap *cluster.ServiceSnapshot, set Settings) (list []cluster.Key) {
	all, _ := resolveWithin(budget, snap, set)
	slicesOf := map[cluster.Key][]*cluster.EndpointSlice{}
	for _, s := range snap.Slices {
		slicesOf[s.Parent()] = append(slicesOf[s.Parent()], s)
	}
	left := leftOutOf(budget, snap.Services, slicesOf)
	for _, s := range snap.Services {
		rest := *snap
		rest.Slices = nil
		for _, e := range snap.Slices {
			if e.Parent() == s.Key {
				e = idle(e)
			}
			rest.Slices = append(rest.Slices, e)
		}
		less, _ := resolveWithin(budget, &rest, set)
		if !left[s] && all.IPv4.Slots.Len()+all.IPv6.Slots.Len() == less.IPv4.Slots.Len()+less.IPv6.Slots.Len() {
			list = append(list, s.Key)
		}
	}
	slices.SortFunc(list, cluster.Key.Compare)
	return list
}

// idle returns a slice whose endpoints do not serve.
func idle(s *cluster.EndpointSlice) *cluster.EndpointSlice {
	c := *s
	c.Endpoints = slices.Clone(s.Endpoints)
	for i := range c.Endpoints {
		c.Endpoints[i].Placement = &cluster.Placement{}
	}
	return &c
}

// checkEmpty takes everything away and looks whether something is left.
func (x *Index) checkEmpty(t *rapid.T, w *gen.Services) {
	var d cluster.ServiceDelta
	snap := w.Snapshot(t)
	d.Services, d.Slices, d.Nodes, d.Pods = gone(snap.Services), gone(snap.Slices), gone(snap.Nodes), gone(snap.Pods)
	x.apply(&d)
	left := len(x.services) + len(x.spaces) + len(x.owners.first) + len(x.owners.all) + len(x.wanting) + len(x.health) + len(x.unsound) +
		len(x.idle) + x.count +
		len(x.taken.nodes.once) + len(x.taken.services.once) + len(x.taken.pods.once) + len(x.taken.nodes.more) +
		len(x.taken.services.more) + len(x.taken.pods.more)
	for i, f := range inet.Families {
		p, skeleton := x.parts[i].publish(), x.env.skeleton(f)
		left += len(x.parts[i].addresses.more) + len(x.parts[i].loops.more) + len(x.parts[i].admissions)
		if p.String() != skeleton.String() {
			t.Errorf("of no Service is left:\n%s", p)
		}
	}
	if left > 0 {
		t.Errorf("%d entries are left: %+v", left, x)
	}
}

func gone[T any](list []*T) (c []cluster.Change[T]) {
	for _, v := range list {
		c = append(c, cluster.Change[T]{Old: v})
	}
	return c
}

// The same cluster gives the same program, whatever came first: each object in a step of its own, in
// any order, after any history.
func TestTheOrderOfEventsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, w := settings(t), &gen.Services{}
		x := NewIndex(set)
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			x.apply(w.Change(t))
		}
		snap := w.Snapshot(t)
		var steps []*cluster.ServiceDelta
		for _, s := range snap.Services {
			steps = append(steps, &cluster.ServiceDelta{Services: []cluster.Change[cluster.Service]{{New: s}}})
		}
		for _, s := range snap.Slices {
			steps = append(steps, &cluster.ServiceDelta{Slices: []cluster.Change[cluster.EndpointSlice]{{New: s}}})
		}
		for _, n := range snap.Nodes {
			steps = append(steps, &cluster.ServiceDelta{Nodes: []cluster.Change[cluster.Node]{{New: n}}})
		}
		for _, p := range snap.Pods {
			steps = append(steps, &cluster.ServiceDelta{Pods: []cluster.Change[cluster.Pod]{{New: p}}})
		}
		if len(steps) > 1 {
			steps = rapid.Permutation(steps).Draw(t, "order")
		}
		y := NewIndex(set)
		for _, d := range steps {
			y.apply(d)
		}
		if a, b := text(x.Model(), x.Diagnostics()), text(y.Model(), y.Diagnostics()); a != b {
			t.Fatalf("one history gives\n%s\nanother\n%s", a, b)
		}
	})
}

// many returns a cluster of n Services with the given number of endpoints each.
func many(n, endpoints int) *cluster.ServiceSnapshot {
	snap := &cluster.ServiceSnapshot{}
	up := &cluster.Placement{Node: "one", Ready: true, Serving: true}
	for i := range n {
		k := cluster.Key{Namespace: "ns", Name: fmt.Sprint("s", i)}
		snap.Services = append(snap.Services, &cluster.Service{Key: k,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports:      []cluster.ServicePort{{Protocol: cluster.TCP, Port: 80}}})
		slice := &cluster.EndpointSlice{Key: k, Service: k.Name, Ports: []cluster.EndpointPort{{Protocol: cluster.TCP, Port: 8080}}}
		for j := range endpoints {
			slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), Placement: up})
		}
		snap.Slices = append(snap.Slices, slice)
	}
	return snap
}

func all(snap *cluster.ServiceSnapshot) *cluster.ServiceDelta {
	d := &cluster.ServiceDelta{}
	for _, s := range snap.Services {
		d.Services = append(d.Services, cluster.Change[cluster.Service]{New: s})
	}
	for _, s := range snap.Slices {
		d.Slices = append(d.Slices, cluster.Change[cluster.EndpointSlice]{New: s})
	}
	return d
}

// A change of one Service is a change of its own elements, and costs what that Service has.
func TestAChangeTouchesItsOwnServiceOnly(t *testing.T) {
	const endpoints = 5
	var costs []float64
	for _, n := range []int{10, 3000} {
		snap := many(n, endpoints)
		x := NewIndex(Settings{Node: "one"})
		x.apply(all(snap))
		before := x.Model().IPv4
		if before.Routes.Len() != n || before.Slots.Len() != n*endpoints {
			t.Fatalf("%d routes, %d slots", before.Routes.Len(), before.Slots.Len())
		}
		old, less := snap.Slices[7], *snap.Slices[7]
		less.Endpoints = slices.Clone(less.Endpoints[1:])
		there := &cluster.ServiceDelta{Slices: []cluster.Change[cluster.EndpointSlice]{{Old: old, New: &less}}}
		back := &cluster.ServiceDelta{Slices: []cluster.Change[cluster.EndpointSlice]{{Old: &less, New: old}}}
		x.apply(there)
		after := x.Model().IPv4
		added, removed := after.Slots.Diff(before.Slots)
		for _, s := range append(added, removed...) {
			if s.Front.Addr != snap.Services[7].ClusterIPs[0] {
				t.Errorf("the slot %v of another Service changed", s)
			}
		}
		routes, _ := after.Routes.Diff(before.Routes)
		if len(routes) != 1 || len(removed)-len(added) != 1 || len(removed) > endpoints {
			t.Errorf("%d routes changed, %d slots came, %d went", len(routes), len(added), len(removed))
		}
		costs = append(costs, testing.AllocsPerRun(20, func() { x.apply(there); x.apply(back) }))
	}
	if costs[1] > 2.5*costs[0] { // the sets are trees: the depth grows
		t.Errorf("allocations of a change: %.0f among 10 Services, %.0f among 3,000", costs[0], costs[1])
	}
}

// A value replaced by an equal one changes nothing, not even by pointer.
func TestNothingChangesForNothing(t *testing.T) {
	snap := many(3, 2)
	x := NewIndex(Settings{})
	x.apply(all(snap))
	before := x.Model()
	again := *snap.Slices[0]
	x.apply(&cluster.ServiceDelta{Slices: []cluster.Change[cluster.EndpointSlice]{{Old: snap.Slices[0], New: &again}}})
	now := x.Model()
	if !now.IPv4.Routes.Same(before.IPv4.Routes) || !now.IPv4.Slots.Same(before.IPv4.Slots) || !reflect.DeepEqual(now, before) {
		t.Error("the program changed")
	}
}

// Where one of two fronts goes, and where both sets are one range each.
func TestSlotsAreARangeOfEachSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []endpoint
		for i := range rapid.IntRange(0, 40).Draw(t, "endpoints") {
			list = append(list, endpoint{Backend: program.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Port: 80},
				local: rapid.Bool().Draw(t, "local"), everywhere: rapid.Bool().Draw(t, "everywhere")})
		}
		front := program.Front{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: inet.TCP, Port: 80}
		ordered, n := order(front, list, true, true)
		shuffled, m := order(front, rapid.Permutation(append(list, endpoint{})).Draw(t, "order"), true, true)
		if !slices.Equal(ordered, shuffled) || n != m {
			t.Fatalf("%v and %v", ordered, shuffled)
		}
		for i, r := range ordered {
			at := slices.IndexFunc(list, func(x endpoint) bool { return x.Backend == r.Backend })
			if x := list[at]; x.local != (i < n[0]+n[1]) || x.everywhere != (i >= n[0]) {
				t.Fatalf("slot %d is %+v of %v", i, x, n)
			}
		}
	})
}

// Without a name the node has no endpoints of its own, not those that have no node.
func TestANodeWithoutNameHasNoEndpoints(t *testing.T) {
	snap := many(1, 2)
	nowhere := &cluster.Placement{Ready: true, Serving: true}
	snap.Slices[0].Endpoints[0].Placement, snap.Slices[0].Endpoints[1].Placement = nowhere, nowhere
	snap.Services[0].InternalLocal = true
	m, _ := Resolve(snap, Settings{})
	if m.IPv4.Slots.Len() != 0 || m.IPv4.Loops.Len() != 0 {
		t.Errorf("endpoints without a node are this node's:\n%s", m.IPv4)
	}
}

// What a front cannot hold is left out by the order of the slots, and said. The other set, which comes
// first, is whole.
func TestMoreEndpointsThanSlots(t *testing.T) {
	snap := many(1, 0)
	s, own := snap.Services[0], &cluster.Placement{Node: "one", Serving: true, Terminating: true}
	up := &cluster.Placement{Node: "two", Ready: true, Serving: true}
	s.External, s.Ports[0].NodePort = &cluster.External{Local: true}, 30080
	slice := snap.Slices[0]
	a := netip.MustParseAddr("10.0.0.1")
	for i := range program.MaxSlots + 10 {
		place := up
		if i < 3 {
			place = own
		}
		slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{Addr: a, Placement: place})
		a = a.Next()
	}
	m, found := Resolve(snap, Settings{Node: "one"})
	if err := m.IPv4.Check(); err != nil {
		t.Fatal(err)
	}
	r, _ := m.IPv4.Route(program.Front{Protocol: inet.TCP, Port: 30080})
	want := program.Pick{Count: 3}
	inside := program.Pick{First: 3, Count: program.MaxSlots - 3, Masquerade: program.Strangers}
	if r.Outside != want || r.Inside != inside {
		t.Errorf("inside %+v, outside %+v, want %+v and %+v", r.Inside, r.Outside, inside, want)
	}
	r, _ = m.IPv4.Route(program.Front{Addr: s.ClusterIPs[0], Protocol: inet.TCP, Port: 80})
	if r.Inside.Count != program.MaxSlots || m.IPv4.Slots.Len() != 2*program.MaxSlots {
		t.Errorf("%d of %d slots", r.Inside.Count, m.IPv4.Slots.Len())
	}
	if len(found) != 1 || found[0].Field != "spec.ports[0]" || !strings.Contains(found[0].Message, "65542 endpoints") {
		t.Errorf("found %v", found)
	}
}

// The addresses that somebody has are those of the cluster now: nothing stays of what has gone.
func TestTakenAddressesAreThoseOfTheCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, x := &gen.Services{}, NewIndex(settings(t))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			x.apply(w.Change(t))
		}
		want, none := newTaken(), map[netip.Addr]bool{}
		snap := w.Snapshot(t)
		for _, n := range snap.Nodes {
			want.nodes.add(n.Addrs, none)
		}
		for _, p := range snap.Pods {
			if p.Networked() {
				want.pods.add(p.IPs, none)
			}
		}
		for _, s := range snap.Services {
			want.services.add(s.ClusterIPs, none)
		}
		if !reflect.DeepEqual(x.taken, want) {
			t.Fatalf("taken are %+v, want %+v", x.taken, want)
		}
	})
}
