// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

// web and open are on a closed bridge, jail and web6 are not.
func TestWhatGoesToAGroupEndsWhereABridgeIsClosed(t *testing.T) {
	group, group6, everybody, subnet := addr("224.0.0.251"), addr("ff02::fb"), addr("255.255.255.255"),
		addr("10.0.0.255")
	link, link6, ownLink := addr("0.0.0.0"), addr("fe80::1"), addr("fe80::2")
	const udp = inet.UDP
	tests := []struct {
		name   string
		entry  inet.Connection
		closed bool // denied with the bridge closed
		open   bool // and without
	}{
		{"a pod there", plain(udp, open, 5353, group, 5353), true, false},
		{"a pod there, to everybody", plain(udp, open, 5353, everybody, 5353), true, false},
		{"a pod there, to its network", plain(udp, open, 5353, subnet, 5353), true, false},
		{"a pod there, answered", pickedUp(plain(udp, open, 5353, group, 5353)), true, false},
		{"a pod there, another protocol", plain(47, open, 0, group, 0), true, false},
		{"a pod there, to another network", plain(udp, open, 5353, addr("10.0.1.255"), 5353), false, false},
		{"an isolated pod there", plain(udp, web, 5353, group, 5353), true, false},
		{"a pod elsewhere that may", plain(udp, jail, 53, group, 53), false, false},
		{"a pod elsewhere that may not", plain(udp, jail, 5353, group, 5353), true, true},
		{"a pod elsewhere, IPv6", plain(udp, web6, 5353, group6, 5353), false, false},
		{"nobody's address", plain(udp, link, 68, everybody, 67), true, false},
		{"a link-local address", plain(udp, link6, 5353, group6, 5353), true, false},
		{"another machine, to a group of its own network", plain(udp, stranger, 5353, group, 5353), false, false},
		{"the node", plain(udp, own, 5353, group, 5353), false, false},
		{"the node, on its link", plain(udp, ownLink, 5353, group6, 5353), false, false},
		{"others, to one receiver", plain(udp, stranger, 40000, peer, 80), false, false},
		{"a pod there, to one receiver", plain(udp, open, 40000, stranger, 80), false, false},
	}
	groups := Groups{Closed: map[netip.Addr]bool{web: true, open: true}, Broadcasts: []netip.Addr{subnet}}
	without := NewJudge(sampleProgram(), []netip.Addr{own, ownLink}, nil)
	with := without.WithGroups(groups)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, denied := with.Judge(&tt.entry)
			if denied != tt.closed {
				t.Errorf("cut %t, want %t", denied, tt.closed)
			}
			if denied && !tt.open && (c.Reason != Ingress || c.Addr != tt.entry.Orig.Dst || !c.Revival.IsZero() ||
				c.Entry != tt.entry) {
				t.Errorf("the cut is %+v", c)
			}
			for _, j := range []*Judge{without, without.WithGroups(Groups{Broadcasts: groups.Broadcasts})} {
				if _, denied := j.Judge(&tt.entry); denied != tt.open {
					t.Errorf("without a closed bridge: cut %t, want %t", denied, tt.open)
				}
			}
		})
	}
}

// An address that a pod has is no broadcast address, whatever the node's networks.
func TestAPodIsNoBroadcast(t *testing.T) {
	j := NewJudge(sampleProgram(), []netip.Addr{own},
		nil).WithGroups(Groups{Closed: map[netip.Addr]bool{open: true}, Broadcasts: []netip.Addr{open}})
	e := plain(inet.TCP, addr("169.254.1.1"), 40000, open, 80)
	if c, denied := j.Judge(&e); denied {
		t.Errorf("cut: %+v", c)
	}
}
