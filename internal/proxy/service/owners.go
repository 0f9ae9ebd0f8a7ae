// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/proxy/program"
)

// owners are the Services that claim fronts.
type owners struct {
	// first is the oldest of those that claim a front: it has it.
	first map[program.Front]*entry
	// all are those that claim a front, the oldest first, where they are several.
	all map[program.Front][]*entry
}

// add notes a claim of an entry, which has a Service.
func (o *owners) add(f program.Front, e *entry) {
	first := o.first[f]
	if first == nil {
		o.first[f] = e
		return
	}
	list := o.all[f]
	if list == nil {
		list = []*entry{first}
	}
	i, _ := slices.BinarySearchFunc(list, e, func(a, b *entry) int { return older(a.service, b.service) })
	list = slices.Insert(list, i, e)
	o.all[f], o.first[f] = list, list[0]
}

// remove removes the claim of an entry. It does not look at Services: that of the entry may be
// another or gone by now.
func (o *owners) remove(f program.Front, e *entry) {
	list := slices.DeleteFunc(o.all[f], func(x *entry) bool { return x == e })
	switch {
	case len(list) > 1:
		o.all[f], o.first[f] = list, list[0]
	case len(list) == 1:
		delete(o.all, f)
		o.first[f] = list[0]
	default:
		delete(o.first, f)
	}
}

// taken counts who has which address.
type taken struct{ nodes, services, pods counter }

func newTaken() taken { return taken{newCounter(), newCounter(), newCounter()} }

// counter is a multiset of addresses. Most are in it once.
type counter struct {
	once map[netip.Addr]struct{}
	more map[netip.Addr]int // how often beside
}

func newCounter() counter {
	return counter{once: map[netip.Addr]struct{}{}, more: map[netip.Addr]int{}}
}

func (c *counter) has(a netip.Addr) bool { _, ok := c.once[a]; return ok }

// add adds addresses, and notes those that are new.
func (c *counter) add(list []netip.Addr, changed map[netip.Addr]bool) {
	for _, a := range list {
		if c.has(a) {
			c.more[a]++
			continue
		}
		c.once[a] = struct{}{}
		changed[a] = true
	}
}

// subtract removes addresses, and notes those that are gone.
func (c *counter) subtract(list []netip.Addr, changed map[netip.Addr]bool) {
	for _, a := range list {
		switch n := c.more[a]; {
		case n > 1:
			c.more[a] = n - 1
		case n == 1:
			delete(c.more, a)
		default:
			delete(c.once, a)
			changed[a] = true
		}
	}
}
