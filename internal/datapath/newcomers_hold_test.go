// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
)

// Passes may come faster than scans end: a waiting pod is held by every pass, and still freed by the first
// scan that finds nothing.
func TestAHeldPodIsFreedHoweverOftenItIsHeld(t *testing.T) {
	n := newNewcomers(10)
	a := netip.MustParseAddr("10.0.0.1")
	n.hold(a, 7)
	all := func(netip.Addr, newcomer) bool { return true }
	if list := n.take(all); len(list) != 1 {
		t.Fatalf("%v are looked for", list)
	}
	n.hold(a, 7) // a pass during the look
	if !n.done(nil, false) || !n.ready(a, 7) {
		t.Error("the pod is not freed by the look")
	}
	if !n.hold(a, 7) || len(n.waiting) > 0 { // a pass that had decided before
		t.Error("a clean address is looked for again")
	}
	if n.hold(a, 8) || n.ready(a, 8) || len(n.waiting) != 1 {
		t.Error("the look over another interface counts")
	}
}

// A pod with new connections at every scan waits for a bounded number of scans.
func TestAHeldPodWaitsForFewLooks(t *testing.T) {
	n := newNewcomers(10)
	a := netip.MustParseAddr("10.0.0.1")
	for i := range looks {
		n.hold(a, 7)
		n.take(func(netip.Addr, newcomer) bool { return true })
		n.hold(a, 7)
		if freed := n.done(map[netip.Addr]int{a: 1}, false); freed != (i == looks-1) {
			t.Fatalf("after look %d freed is %t", i+1, freed)
		}
	}
}
