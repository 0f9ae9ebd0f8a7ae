// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
)

func everyone(netip.Addr, newcomer) bool { return true }

// look is a whole look that finds n connections of the address.
func (n *newcomers) look(a netip.Addr, found int) (freed bool) {
	n.take(everyone)
	return n.done(map[netip.Addr]int{a: found}, false)
}

func TestWhenAnAddressIsClean(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	tests := []struct {
		name  string
		steps func(n *newcomers)
		link  int // as the pod's route goes
		want  bool
		empty bool // nothing is left
	}{
		{"no scan", func(n *newcomers) { n.add(a, 7, false) }, 7, false, false},
		{"nothing was found", func(n *newcomers) { n.add(a, 7, false); n.look(a, 0) }, 7, true, true},
		{"the route goes elsewhere now", func(n *newcomers) { n.add(a, 7, false); n.look(a, 0) }, 8, false, false},
		{"the route is gone", func(n *newcomers) { n.add(a, 7, false); n.look(a, 0) }, 0, false, false},
		{"something was found", func(n *newcomers) { n.add(a, 7, false); n.look(a, 1) }, 7, false, false},
		{"and then nothing", func(n *newcomers) { n.add(a, 7, false); n.look(a, 1); n.look(a, 0) }, 7, true, true},
		{"a new route since", func(n *newcomers) { n.add(a, 7, false); n.look(a, 0); n.add(a, 7, false) }, 7, false, false},
		{"a new route during the look", func(n *newcomers) {
			n.add(a, 7, false)
			n.take(everyone)
			n.add(a, 7, false)
			n.done(nil, false)
		}, 7, false, false},
		{"it was a pod's since", func(n *newcomers) { n.add(a, 7, false); n.look(a, 0); n.listed(a) }, 7, false, false},
		{"it was a pod's during the look", func(n *newcomers) {
			n.add(a, 7, false)
			n.take(everyone)
			n.listed(a)
			n.done(nil, false)
		}, 7, false, false},
		{"the rules were away", func(n *newcomers) { n.add(a, 7, false); n.look(a, 0); n.doubt() }, 7, false, false},
		{"the rules were away during the look",
			func(n *newcomers) { n.add(a, 7, false); n.take(everyone); n.doubt(); n.done(nil, false) }, 7, false, false},
		{"the look failed", func(n *newcomers) { n.add(a, 7, false); n.take(everyone); n.done(nil, true) }, 7, false, false},
		{"the look failed and a pod waits", func(n *newcomers) { n.add(a, 7, true); n.take(everyone); n.done(nil, true) },
			7, true, false},
		{"a pod waited for long and something was found", func(n *newcomers) {
			n.add(a, 7, true)
			for range looks {
				n.look(a, 1)
			}
		}, 7, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNewcomers(10)
			tt.steps(&n)
			if got := n.ready(a, tt.link); got != tt.want {
				t.Errorf("clean %t, want %t: %+v", got, tt.want, n)
			}
			if got := n.ready(a, tt.link) && n.clean[a].Empty; got != tt.empty {
				t.Errorf("empty %t, want %t: %+v", got, tt.empty, n)
			}
		})
	}
}

// Continuous traffic to a new address does not delay its pod for ever.
func TestAPodThatIsHeldWaitsForFewLooks(t *testing.T) {
	a, n := netip.MustParseAddr("10.0.0.1"), newNewcomers(10)
	n.add(a, 7, true)
	n.add(a, 7, false) // keeps it held
	for i := 1; ; i++ {
		freed := n.look(a, 1)
		if freed != n.ready(a, 7) {
			t.Errorf("freed %t, clean %t", freed, n.ready(a, 7))
		}
		if freed {
			if i != looks {
				t.Errorf("it waited for %d looks, want %d", i, looks)
			}
			return
		}
		if i > looks {
			t.Fatal("it waits for ever")
		}
	}
}

func TestNewcomersAreBounded(t *testing.T) {
	n, a := newNewcomers(10), netip.MustParseAddr("10.0.0.1")
	for range 5 {
		for range 20 {
			a = a.Next()
			n.add(a, 7, false)
		}
		if len(n.waiting) != 10 {
			t.Errorf("%d wait", len(n.waiting))
		}
		if held := a.Next(); !n.add(held, 7, true) {
			t.Error("a pod is not looked for")
		}
		n.look(a, 0)
		if len(n.clean) > 10 {
			t.Errorf("%d are clean", len(n.clean))
		}
	}
}
