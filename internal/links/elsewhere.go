// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
// stay on the node itself. It is false where there is no route at all.
func Elsewhere(a netip.Addr) bool {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return false // unreachable: no route is the normal case here
	}
	r := routes[0]
	return r.Gw != nil || r.Via != nil || r.Type != unix.RTN_UNICAST
}
