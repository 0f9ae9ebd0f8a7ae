// SPDX-License-Identifier: Apache-2.0

package ipvs_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// fake is the kernel's IPVS, with its refusals.
type fake map[kernel.ID]kernel.Listed

func (k fake) do(o kernel.Op) error {
	s, there := k[o.Service.ID]
	if there == (o.Kind == kernel.AddService) {
		return fmt.Errorf("%s: the virtual service is there: %v", o, there)
	}
	i := slices.IndexFunc(s.Destinations, func(h kernel.Held) bool { return h.Backend == o.Destination.Backend })
	held := slices.Clone(s.Destinations)
	switch o.Kind {
	case kernel.AddService:
		s = kernel.Listed{Service: o.Service}
	case kernel.EditService:
		s.Service = o.Service
	case kernel.DeleteService:
		delete(k, o.Service.ID)
		return nil
	case kernel.AddDestination:
		if i >= 0 {
			return fmt.Errorf("%s: it is there", o)
		}
		held = append(held, kernel.Held{Destination: o.Destination})
	case kernel.EditDestination, kernel.DeleteDestination:
		if i < 0 {
			return fmt.Errorf("%s: it is not there", o)
		}
		held[i].Destination = o.Destination
		if o.Kind == kernel.DeleteDestination {
			held = slices.Delete(held, i, i+1)
		}
	}
	slices.SortFunc(held, func(a, b kernel.Held) int { return a.Compare(b.Backend) })
	s.Destinations = held
	k[o.Service.ID] = s
	return nil
}

// takes reports whether a virtual service takes every client. Schedulers that hash give clients to destinations
// of weight 0, too, and refuse them then, but with the option to choose another one, which dh does not have.
func (k fake) takes(id kernel.ID) bool {
	some, zero := false, false
	for _, h := range k[id].Destinations {
		some, zero = some || h.Weight > 0, zero || h.Weight == 0
	}
	s := k[id].Service
	refuses := s.Scheduler == "dh" || (s.Scheduler == "sh" || s.Scheduler == "mh") && s.Flags&kernel.Option1 == 0
	return some && !(zero && refuses)
}

// draw draws a state of the kernel: virtual services of an earlier program with connections, changed by
// others, and those of other programs, some at IDs that the plan wants.
func draw(t *rapid.T, earlier, plan ipvs.Plan) fake {
	k := fake{}
	add := func(s kernel.Service, list []kernel.Backend) {
		one := kernel.Listed{Service: s}
		for _, b := range list {
			n := uint32(rapid.IntRange(0, 2).Draw(t, "connections"))
			one.Destinations = append(one.Destinations, kernel.Held{Active: n, Destination: kernel.Destination{Backend: b,
				Weight: uint32(rapid.IntRange(0, 2).Draw(t, "weight")), Other: rapid.IntRange(0, 5).Draw(t, "method") == 0}})
		}
		k[s.ID] = one
	}
	for _, id := range slices.SortedFunc(maps.Keys(earlier.Virtual), kernel.ID.Compare) {
		v := earlier.Virtual[id]
		if rapid.IntRange(0, 4).Draw(t, "deleted by others") == 0 {
			continue
		}
		if rapid.IntRange(0, 4).Draw(t, "edited by others") == 0 {
			v.Scheduler = "fo"
		}
		add(v.Service, v.Backends[:rapid.IntRange(0, len(v.Backends)).Draw(t, "destinations")])
	}
	others := append(slices.SortedFunc(maps.Keys(plan.Virtual), kernel.ID.Compare),
		kernel.ID{Addr: genproxy.Addr(inet.IPv4, 9, 9), Protocol: inet.TCP, Port: 80})
	for _, id := range others {
		if rapid.IntRange(0, 4).Draw(t, "of another program") == 0 {
			add(kernel.Service{ID: id, Scheduler: "wlc"}, []kernel.Backend{{Addr: genproxy.Addr(inet.IPv4, 9, 8), Port: 80}})
		}
	}
	return k
}

// The changes lead from any state to the plan. Whatever another program has is as it was. A virtual service
// that takes connections before and after takes them after every operation. Destinations with connections
// that may go on stay, without new ones.
func TestChangesLeadToThePlan(t *testing.T) {
	seen := seen{}
	for n := range 50 { // a few rounds may have had too little luck
		rapid.Check(t, func(t *rapid.T) { checkChanges(t, &seen) })
		if n > 3 && seen.drained > 0 && seen.taken > 0 && seen.late > 0 {
			return
		}
	}
	t.Errorf("what was drawn is not all there is: %+v", seen)
}

// seen counts virtual services that drain, are another program's, and wait for the tables.
type seen struct{ drained, taken, late int }

func checkChanges(t *rapid.T, seen *seen) {
	before := genproxy.Program(t, rapid.SampledFrom(inet.Families[:]).Draw(t, "family"))
	earlier := ipvs.Of(before)
	after := before
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		after = genproxy.Change(t, after)
	}
	plan := ipvs.Of(after)
	k := draw(t, earlier, plan)
	was := maps.Clone(k)
	serves := map[kernel.Backend]bool{}
	keep := func(_ kernel.ID, b kernel.Backend) bool {
		if _, known := serves[b]; !known {
			serves[b] = rapid.Bool().Draw(t, "may go on")
		}
		return serves[b]
	}
	at := slices.SortedFunc(maps.Keys(union(k, plan.Virtual)), kernel.ID.Compare)
	c := ipvs.Diff(k, plan.Virtual, at, keep)
	for i, ops := range [][]kernel.Op{c.Before, c.Late, c.After} {
		for _, o := range ops {
			if err := k.do(o); err != nil {
				t.Fatal(err)
			}
			id := o.Service.ID
			if was.takes(id) && len(plan.Virtual[id].Backends) > 0 && !k.takes(id) {
				t.Fatalf("after %q the virtual service refuses connections", o)
			}
		}
		if i == 0 {
			seen.late += checkBeforeTheTables(t, was, k, plan)
		}
	}
	for _, id := range at {
		drains := checkOne(t, id, was, k, plan, keep)
		if drains != slices.Contains(c.Draining, id) {
			t.Fatalf("%s: drains: %v, and in the list %v", id, drains, c.Draining)
		}
	}
	seen.drained, seen.taken = seen.drained+len(c.Draining), seen.taken+len(c.Taken)
	again := ipvs.Diff(k, plan.Virtual, at, keep)
	if len(again.Before)+len(again.Late)+len(again.After) > 0 {
		t.Fatalf("the changes do not lead to an end: %+v", again)
	}
}

// checkBeforeTheTables wants no destination that takes clients where the tables do not yet, or no longer, keep
// out those that may not come, and returns where some come later.
func checkBeforeTheTables(t *rapid.T, was, is fake, plan ipvs.Plan) (late int) {
	for id, got := range is {
		v, wanted := plan.Virtual[id]
		if !ipvs.Own(got.Service) || wanted && !v.Restricted {
			continue
		}
		takes := func(h kernel.Held) bool { return h.Weight > 0 }
		if wanted && slices.ContainsFunc(was[id].Destinations, takes) {
			continue // the tables know its clients
		}
		if slices.ContainsFunc(got.Destinations, takes) {
			t.Fatalf("%s takes clients that the tables do not look at: %+v", id, got)
		}
		if wanted {
			late++
		}
	}
	return late
}

// checkOne compares a virtual service with the plan, and reports whether it drains.
func checkOne(t *rapid.T, id kernel.ID, was, is fake, plan ipvs.Plan, keep ipvs.Keep) (drains bool) {
	if other, there := was[id]; there && !ipvs.Own(other.Service) {
		if got := is[id]; got.Service != other.Service || !slices.Equal(got.Destinations, other.Destinations) {
			t.Fatalf("that of another program changed: %+v was %+v", got, other)
		}
		return false
	}
	v, wanted := plan.Virtual[id]
	var takes []kernel.Backend
	for _, h := range is[id].Destinations {
		if h.Weight > 0 && !h.Other {
			takes = append(takes, h.Backend)
			continue
		}
		drains = true
		if h.Active == 0 || !keep(id, h.Backend) || slices.Contains(v.Backends, h.Backend) {
			t.Fatalf("%s: a destination that nobody needs: %+v", id, h)
		}
	}
	if !slices.Equal(takes, v.Backends) {
		t.Fatalf("%s takes connections at %v, want %v", id, takes, v.Backends)
	}
	if wanted && is[id].Service != v.Service {
		t.Fatalf("%s is %+v, want %+v", id, is[id].Service, v.Service)
	}
	if _, there := is[id]; there != (wanted || drains) {
		t.Fatalf("%s is there: %v", id, there)
	}
	for _, h := range was[id].Destinations {
		stays := slices.ContainsFunc(is[id].Destinations, func(o kernel.Held) bool { return o.Backend == h.Backend })
		drains := !wanted || v.Scheduler != "dh"
		if h.Active > 0 && keep(id, h.Backend) && drains && !stays {
			t.Fatalf("%s lost a destination whose connections go on: %+v", id, h)
		}
	}
	return drains
}

// A program is told which front an ID belongs to, also after it is gone.
func TestFrontOfAnID(t *testing.T) {
	node, service := genproxy.Addr(inet.IPv4, 1, 0), genproxy.Addr(inet.IPv4, 0, 1)
	p := &program.Program{Family: inet.IPv4}
	p.NodeAddresses = append(p.NodeAddresses, node)
	for id, want := range map[kernel.ID]program.Front{
		{Addr: node, Protocol: inet.TCP, Port: 30080}: {Protocol: inet.TCP, Port: 30080},
		{Addr: service, Protocol: inet.UDP, Port: 53}: {Addr: service, Protocol: inet.UDP, Port: 53},
	} {
		if got := ipvs.Front(p, id); got != want {
			t.Errorf("%s: got %s, want %s", id, got, want)
		}
	}
}
