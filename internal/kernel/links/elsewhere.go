// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"slices"
)

// elsewhere reports whether no pod of this node can be behind the interface. Where
// nobody can tell it is false: on a bridge that also leads out of the node, on a
// pair that the operator counts among the uplinks, and on an interface whose pods
// would talk beside the IP layer.
func (d device) elsewhere() bool {
	switch {
	case d.kind == "bridge":
		return false
	case d.ofNode:
		return true
	case pair(d.kind) && d.away:
		return false
	case d.kind == "tuntap":
		return d.uplink
	}
	return d.uplink || !slices.Contains(besideKinds(), d.kind)
}

// besideKinds are the kinds of interfaces beside which pods may be. Network cards,
// bonds and tunnels are none.
func besideKinds() []string {
	return []string{"veth", "netkit", "macvlan", "macvtap", "ipvlan", "ipvtap", "openvswitch"}
}

// Elsewhere reports whether a packet to the address would leave by a gateway or
// stay on the node itself. It is false where there is no route at all. Like Find it
// remembers the answer until the kernel says that routes changed, and is called by
// the same goroutine.
func (l *Links) Elsewhere(a netip.Addr) bool { return l.routes.to(a).elsewhere }
