// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// turn is one Apply.
type turn struct {
	*Proxy
	want   tables.Desired
	known  bool // what the kernel has was known before
	plans  [len(inet.Families)]ipvs.Plan
	parts  [len(inet.Families)]part
	before map[kernel.ID]error // what was refused before at what is looked at
	stale  bool                // the kernel has something else than was known
	failed []error

	ops   int
	drift map[kernel.ID]bool // virtual services that others changed
}

// part is what is left to do for a family when its table is in force.
type part struct {
	late, after []kernel.Op
	appear      []netip.Addr
}

// enter does for a family what comes before its table: virtual services and destinations that come, those
// whose connections are awaited, and addresses that go. An address that goes must go before the table lets
// packets to it pass to programs of the node.
func (t *turn) enter(i int, f *family) {
	p := t.want.Model.Program(f.Family)
	keep := newKeeper(p, t.want.Serving).keep
	var at []kernel.ID
	t.admit(p)
	for {
		plan := f.planner.Next(p, ipvs.Lacks{Schedulers: t.missing, Virtual: t.without})
		t.plans[i] = plan
		at = union(at, t.ids(f, plan))
		t.again(f.Family, at)
		if t.known {
			t.refresh(at)
		}
		c := ipvs.Diff(t.actual, plan.Virtual, at, keep)
		without := len(t.without)
		lacking := t.lacking(t.run(c.Before))
		t.count(f, plan, c)
		if lacking || len(t.without) > without {
			continue // the plan without what the kernel does not have or take
		}
		t.take(f.Family, at, c.Taken)
		f.draining = c.Draining
		t.parts[i].late, t.parts[i].after = c.Late, c.After
		break
	}
	for _, o := range t.parts[i].late {
		f.awaited[o.Service.ID] = true
	}
	f.applied = true
	t.addresses(i, f, at)
}

// admit forgets refused virtual services whose fronts a program does not have.
func (t *turn) admit(p *program.Program) {
	for id := range t.without {
		if _, has := p.Route(ipvs.Front(p, id)); inet.FamilyOf(id.Addr) == p.Family && !has {
			delete(t.without, id)
			delete(t.refused, id)
		}
	}
}

// ids returns the IDs to look at: those that changed, or all if the kernel was read just now.
func (t *turn) ids(f *family, plan ipvs.Plan) []kernel.ID {
	if t.known {
		return union(plan.Changed, f.draining)
	}
	all := slices.Collect(maps.Keys(plan.Virtual))
	for id := range t.actual {
		if inet.FamilyOf(id.Addr) == f.Family {
			all = append(all, id)
		}
	}
	return union(all, nil)
}

// union returns the IDs of both lists, sorted.
func union(a, b []kernel.ID) []kernel.ID {
	all := slices.Concat(a, b)
	slices.SortFunc(all, kernel.ID.Compare)
	return slices.Compact(all)
}

// refresh reads how many connections destinations have of which some may go.
func (t *turn) refresh(at []kernel.ID) {
	for _, id := range at {
		s, there := t.actual[id]
		if !there || len(s.Destinations) == 0 {
			continue
		}
		held, err := t.conn.Destinations(id)
		if err != nil {
			t.failed = append(t.failed, err)
			continue
		}
		s.Destinations = held
		t.actual[id] = s
	}
}

// run carries out operations, also after one that fails, and notes what the kernel has then. A virtual
// service that was refused gets no destinations. It returns those that failed for want of a scheduler; other
// failures are noted.
func (t *turn) run(ops []kernel.Op) (unscheduled []kernel.Op) {
	for _, o := range ops {
		_, there := t.actual[o.Service.ID]
		if !there && o.Kind == kernel.AddDestination && t.refused[o.Service.ID] != nil {
			continue
		}
		switch err := t.conn.Do(o); {
		case errors.Is(err, kernel.ErrScheduler) && o.Service.Scheduler != program.RoundRobin.String():
			unscheduled = append(unscheduled, o)
			return unscheduled // what follows is about this virtual service, or planned anew
		case err != nil:
			t.refuse(o.Service.ID, err)
			if o.Kind == kernel.AddService && t.refused[o.Service.ID] != nil {
				t.without[o.Service.ID] = true
			}
		default:
			t.ops++
			done(t.actual, o)
		}
	}
	return nil
}

// lacking notes the schedulers that the kernel does not have, and reports whether there are any.
func (t *turn) lacking(ops []kernel.Op) bool {
	for _, o := range ops {
		name := o.Service.Scheduler
		if !slices.Contains(t.lacked, name) { // lacked is of the last turn
			t.log.Error("the kernel does not have a scheduler that Services ask for, they get rr", "scheduler", name)
		}
		t.missing = append(t.missing, name)
		slices.Sort(t.missing)
	}
	return len(ops) > 0
}

// done notes an operation that succeeded.
func done(actual map[kernel.ID]kernel.Listed, o kernel.Op) {
	s := actual[o.Service.ID]
	i, found := slices.BinarySearchFunc(s.Destinations, o.Destination.Backend,
		func(h kernel.Held, b kernel.Backend) int { return h.Compare(b) })
	switch o.Kind {
	case kernel.AddService, kernel.EditService:
		s.Service = o.Service
	case kernel.DeleteService:
		delete(actual, o.Service.ID)
		return
	case kernel.AddDestination, kernel.EditDestination:
		if !found {
			s.Destinations = slices.Insert(s.Destinations, i, kernel.Held{})
		}
		s.Destinations[i].Destination = o.Destination
	case kernel.DeleteDestination:
		if found {
			s.Destinations = slices.Delete(s.Destinations, i, i+1)
		}
	}
	actual[o.Service.ID] = s
}

// count notes the virtual services that others changed. What an earlier turn, whose table failed, did not come to is
// none of it, nor what the kernel had refused.
func (t *turn) count(f *family, plan ipvs.Plan, c ipvs.Changes) {
	if t.known || !f.applied {
		return
	}
	for _, o := range slices.Concat(c.Before, c.Late, c.After) {
		// What drained is deleted when its connections have ended: no other program did that.
		drained := o.Kind == kernel.DeleteDestination || o.Kind == kernel.DeleteService
		id := o.Service.ID
		refused := t.refused[id] != nil || t.before[id] != nil
		if !drained && !f.awaited[id] && !refused && !slices.Contains(plan.Changed, id) {
			t.drift[id] = true
		}
	}
}

// addresses removes the addresses that go, and notes those that come.
func (t *turn) addresses(i int, f *family, at []kernel.ID) {
	look := map[netip.Addr]bool{}
	for _, id := range at {
		look[id.Addr] = true
	}
	if !t.known {
		for a := range f.local {
			look[a] = true
		}
	}
	drains := map[netip.Addr]bool{}
	p := t.want.Model.Program(f.Family)
	if source := source(p); source != f.source {
		for a := range f.local {
			look[a] = true
		}
		f.source = source
	}
	for _, id := range f.draining {
		drains[id.Addr] = ipvs.Front(p, id).Addr.IsValid()
	}
	for a := range look {
		from, there := f.local[a]
		switch needed := t.plans[i].Local(a) || drains[a]; {
		case needed && (!there || from != f.source):
			t.parts[i].appear = append(t.parts[i].appear, a)
		case !needed && there:
			if err := t.routes.remove(a); err != nil {
				t.refuse(kernel.ID{Addr: a}, err)
				continue
			}
			delete(f.local, a)
		}
	}
}

// leave does for a family what comes after its table: destinations of virtual services that only some clients
// may use, addresses that come, and virtual services that go.
func (t *turn) leave(f inet.Family) error {
	i := index(f)
	before := t.failed
	t.failed = nil
	of := t.families[i]
	t.run(t.parts[i].late)
	clear(of.awaited)
	for _, a := range t.parts[i].appear {
		from, err := t.routes.add(a, of.source)
		if err != nil {
			t.refuse(kernel.ID{Addr: a}, err)
			continue
		}
		of.local[a] = from
	}
	t.run(t.parts[i].after)
	err := errors.Join(t.failed...)
	t.failed = before
	return err
}

// source returns the address from which the node connects to Services.
func source(p *program.Program) (a netip.Addr) {
	if len(p.NodeAddresses) > 0 {
		a = p.NodeAddresses[0]
	}
	return a
}
