// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"

	"github.com/podwall/podwall/internal/netpol/decide"
)

// newcomers are addresses that a pod has got or may get soon. An address is clean if a scan of the
// connection table found no connections older than the pod; a pod with a clean address can be programmed at
// once. The type reads neither clock nor kernel; limit bounds each of its maps.
type newcomers struct {
	limit   int
	waiting map[netip.Addr]newcomer // to be scanned for
	current map[netip.Addr]newcomer // in the running scan
	clean   map[netip.Addr]decide.Search
}

// newcomer is an address that waits for a scan.
type newcomer struct {
	link  int  // the interface of its route; 0 if there is no route
	held  bool // a pod is held until the scan
	looks int  // scans that found something
}

func newNewcomers(limit int) newcomers {
	return newcomers{
		limit:   limit,
		waiting: map[netip.Addr]newcomer{},
		current: map[netip.Addr]newcomer{},
		clean:   map[netip.Addr]decide.Search{},
	}
}

// add queues an address for a scan and drops earlier results: its route is new, or a pod has it without a
// scan. It reports whether there was room; a held address always gets room.
func (n *newcomers) add(a netip.Addr, link int, held bool) bool {
	w, known := n.waiting[a]
	delete(n.clean, a)
	if !known && !held && len(n.waiting) >= n.limit {
		return false
	}
	n.waiting[a] = newcomer{link: link, held: held || w.held}
	return true
}

// hold queues the address of a held pod for a scan. A scan that is due or runs for it counts, because
// passes may come faster than scans end. It reports whether the pod need not be held: a scan may have ended
// since the pass read the clean addresses.
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

// ready reports whether the address is clean and its route still uses the same interface.
func (n *newcomers) ready(a netip.Addr, link int) bool {
	s, clean := n.clean[a]
	return clean && s.Link == link
}

// take begins a scan for the addresses that want accepts.
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

// done ends the scan. found counts the deleted connections per address; failed means that the scan failed.
// An address with connections, or of a failed scan, is queued again. A pod is held for a few scans at most,
// and not for one that failed. done reports whether a pod need not be held any longer.
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
			clear(n.clean) // pods that never started; the others are scanned for again
		}
		n.clean[a], freed = decide.Search{Link: w.link, Empty: !failed && found[a] == 0}, freed || w.held
	}
	clear(n.current)
	return freed
}

// listed notes that the kernel's table lists a pod with the address: connections found from now on may be
// the pod's own.
func (n *newcomers) listed(a netip.Addr) {
	delete(n.waiting, a)
	delete(n.current, a)
	delete(n.clean, a)
}

// doubt forgets the clean addresses: the rules that kept them clean may have been absent.
func (n *newcomers) doubt() {
	clear(n.clean)
	for a, w := range n.current {
		n.waiting[a] = w
	}
	clear(n.current)
}
