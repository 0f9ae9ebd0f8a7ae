// SPDX-License-Identifier: Apache-2.0

package datapath

import "net/netip"

// newcomers are addresses that a pod has got or may get soon. An address is clean
// when the connection table was looked through for connections from before the pod
// and nothing was left; a pod of a clean address can be programmed at once. It
// reads no clock and asks no kernel; limit bounds each of its maps.
type newcomers struct {
	limit   int
	waiting map[netip.Addr]newcomer // to be looked for
	current map[netip.Addr]newcomer // being looked for
	// clean has the interfaces that the routes went over at the look.
	clean map[netip.Addr]int
}

// newcomer is an address that waits.
type newcomer struct {
	link  int  // the interface that its route goes over; 0 if there is none
	held  bool // a pod waits for the look
	looks int  // that found something
}

func newNewcomers(limit int) newcomers {
	return newcomers{limit: limit, waiting: map[netip.Addr]newcomer{}, current: map[netip.Addr]newcomer{}, clean: map[netip.Addr]int{}}
}

// add has an address looked for. What was known of it counts no more: its route is
// new, or a pod has it and nobody looked. It reports whether there was room; for
// one that is held there always is.
func (n *newcomers) add(a netip.Addr, link int, held bool) bool {
	w, known := n.waiting[a]
	delete(n.clean, a)
	if !known && !held && len(n.waiting) >= n.limit {
		return false
	}
	n.waiting[a] = newcomer{link: link, held: held || w.held}
	return true
}

// hold has the address of a pod that waits looked for. A look that is due or under
// way for it counts: passes may come faster than looks end. It reports whether the pod
// need not wait: a look may have ended since the pass asked what is clean.
func (n *newcomers) hold(a netip.Addr, link int) (ready bool) {
	if w, due := n.waiting[a]; due {
		if w.link == link {
			w.held = true
			n.waiting[a] = w
			return false
		}
	} else if n.ready(a, link) {
		return true
	} else if w := n.current[a]; w.held && w.link == link {
		return false
	}
	n.add(a, link, true)
	return false
}

// ready reports whether the address is clean and its route goes over the same
// interface as then.
func (n *newcomers) ready(a netip.Addr, link int) bool {
	l, clean := n.clean[a]
	return clean && l == link
}

// take begins a look, for those that want holds for.
func (n *newcomers) take(want func(netip.Addr, newcomer) bool) (list []netip.Addr) {
	n.current = map[netip.Addr]newcomer{}
	for a, w := range n.waiting {
		if want(a, w) {
			n.current[a] = w
			list = append(list, a)
		}
	}
	clear(n.waiting)
	return list
}

// done ends the look. It found some connections of these addresses and deleted
// them; with failed it could not. Then, and where it found some, it is made again.
// A pod waits for no more than a few looks, and for none that fails. It reports
// whether a pod need not wait any longer.
func (n *newcomers) done(found map[netip.Addr]int, failed bool) (freed bool) {
	for a, w := range n.current {
		if next, news := n.waiting[a]; news {
			next.held = next.held || w.held
			n.waiting[a] = next
			continue
		}
		again := failed && !w.held
		if found[a] > 0 {
			w.looks++
			again = again || !w.held || w.looks < looks
		}
		if again {
			n.waiting[a] = w
			continue
		}
		if len(n.clean) >= n.limit {
			clear(n.clean) // pods that never came; the others are looked for again
		}
		n.clean[a], freed = w.link, freed || w.held
	}
	clear(n.current)
	return freed
}

// listed says that the kernel has a pod with the address: what is found now may be
// the pod's own.
func (n *newcomers) listed(a netip.Addr) {
	delete(n.waiting, a)
	delete(n.current, a)
	delete(n.clean, a)
}

// doubt forgets what is clean: the rules that kept it so may have been away.
func (n *newcomers) doubt() {
	clear(n.clean)
	for a, w := range n.current {
		n.waiting[a] = w
	}
	clear(n.current)
}
