// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// part is the program of a family, while it is being changed.
type part struct {
	frame      program.Program // what does not come from Services
	routes     immutable.Set[program.Route]
	slots      immutable.Set[program.Slot]
	addresses  tally[inet.Element]
	loops      tally[inet.Element]
	admissions map[string]*counted
	list       []program.Admission // sorted; nil after a change
}

// counted is an admission and the number of Services that need it.
type counted struct {
	program.Admission
	count int
}

func newPart(frame program.Program) part {
	return part{frame: frame, admissions: map[string]*counted{},
		addresses: tally[inet.Element]{more: map[inet.Element]int{}},
		loops:     tally[inet.Element]{more: map[inet.Element]int{}}}
}

// publish returns the program.
func (p *part) publish() *program.Program {
	if p.list == nil && len(p.admissions) > 0 {
		for _, a := range p.admissions {
			p.list = append(p.list, a.Admission)
		}
		slices.SortFunc(p.list, compareAdmissions)
	}
	out := p.frame
	out.Routes, out.Slots = p.routes, p.slots
	out.ClusterAddresses, out.Loops = p.addresses.set, p.loops.set
	out.Admissions = p.list
	return &out
}

// at returns what the part's program says about packets to an address, protocol and port. It changes nothing.
func (p *part) at(to program.Front) (program.Route, program.Fate) {
	out := p.frame
	out.Routes, out.ClusterAddresses = p.routes, p.addresses.set
	return out.At(to)
}

// tally is a set that knows how often an element was added. Most are in it once.
type tally[E immutable.Hasher] struct {
	set  immutable.Set[E]
	more map[E]int // how often beside
}

func (t *tally[E]) change(e edits[E]) {
	var c edits[E]
	for _, x := range e.removed {
		switch n := t.more[x]; {
		case n > 1:
			t.more[x] = n - 1
		case n == 1:
			delete(t.more, x)
		default:
			c.removed = append(c.removed, x)
		}
	}
	t.set = c.apply(t.set)
	c = edits[E]{}
	seen := map[E]bool{}
	for _, x := range e.added {
		if t.set.Has(x) || seen[x] {
			t.more[x]++
			continue
		}
		seen[x] = true
		c.added = append(c.added, x)
	}
	t.set = c.apply(t.set)
}

// edits are elements to remove and to add, in this order.
type edits[E immutable.Hasher] struct{ removed, added []E }

// apply returns the set after the edits.
func (e *edits[E]) apply(s immutable.Set[E]) immutable.Set[E] {
	for _, x := range e.removed {
		s = s.Without(x)
	}
	if s.Len() == 0 {
		return immutable.Of(e.added...)
	}
	for _, x := range e.added {
		s = s.With(x)
	}
	return s
}

// edit is a change of a part.
type edit struct {
	routes           edits[program.Route]
	slots            edits[program.Slot]
	addresses, loops edits[inet.Element]
	without, with    []program.Admission
}

// replace adds the difference between two fragments of a Service.
func (d *edit) replace(f inet.Family, before, after *fragment) {
	old := map[program.Front]*answered{}
	for i := range before.fronts {
		if a := &before.fronts[i]; a.family == f {
			old[a.route.Front] = a
		}
	}
	for i := range after.fronts {
		a := &after.fronts[i]
		if a.family != f {
			continue
		}
		d.front(old[a.route.Front], a)
		delete(old, a.route.Front)
	}
	for _, a := range old {
		d.front(a, nil)
	}
	exchangeAddresses(&d.addresses, f, before.addresses, after.addresses)
	exchangeAddresses(&d.loops, f, before.loops, after.loops)
	d.without = append(d.without, admissionsOf(before, f)...)
	d.with = append(d.with, admissionsOf(after, f)...)
}

func (e *edits[E]) exchange(old, now E, had, has bool) {
	if had && has && old == now {
		return
	}
	if had {
		e.removed = append(e.removed, old)
	}
	if has {
		e.added = append(e.added, now)
	}
}

// front adds the difference of one front; nil for one that is not there.
func (d *edit) front(old, now *answered) {
	var before, after answered
	if old != nil {
		before = *old
	}
	if now != nil {
		after = *now
	}
	d.routes.exchange(before.route, after.route, old != nil, now != nil)
	for i := range max(len(before.slots), len(after.slots)) {
		had, has := i < len(before.slots), i < len(after.slots)
		var a, b program.Slot
		if had {
			a = before.slots[i]
		}
		if has {
			b = after.slots[i]
		}
		d.slots.exchange(a, b, had, has)
	}
}

// exchangeAddresses adds the difference between two sorted lists of addresses, of which those of the
// family count.
func exchangeAddresses(e *edits[inet.Element], f inet.Family, before, after []netip.Addr) {
	into := func(list *[]inet.Element) func(netip.Addr) {
		return func(a netip.Addr) {
			if inet.FamilyOf(a) == f {
				*list = append(*list, inet.Element{Addr: a})
			}
		}
	}
	inet.EachChange(before, after, into(&e.removed), into(&e.added))
}

func admissionsOf(f *fragment, family inet.Family) (list []program.Admission) {
	for _, a := range f.admissions {
		if a.family == family {
			list = append(list, a.Admission)
		}
	}
	return list
}

// apply changes the part.
func (p *part) apply(d *edit) {
	p.routes, p.slots = d.routes.apply(p.routes), d.slots.apply(p.slots)
	p.addresses.change(d.addresses)
	p.loops.change(d.loops)
	for _, a := range d.with {
		if c := p.admissions[a.Name]; c != nil {
			c.count++
			continue
		}
		p.admissions[a.Name], p.list = &counted{a, 1}, nil
	}
	for _, a := range d.without {
		c := p.admissions[a.Name]
		if c.count--; c.count == 0 {
			delete(p.admissions, a.Name)
			p.list = nil
		}
	}
}
