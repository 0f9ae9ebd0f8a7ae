// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"slices"
)

// elsewhere reports whether no pod of this node can be behind the interface. It is false in doubt: on a
// bridge with an uplink, on a pair that the operator names as an uplink, and on an interface whose pods
// bypass the IP layer.
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

// besideKinds are the kinds of interfaces whose pods may bypass the IP layer. Network cards, bonds and
// tunnels are not among them.
func besideKinds() []string {
	return []string{"veth", "netkit", "macvlan", "macvtap", "ipvlan", "ipvtap", "openvswitch"}
}

// Elsewhere reports whether a packet to the address would leave by a gateway or stay on the node. It is
// false without any route. Like Find it caches the answer until the kernel reports a route change, and must
// be called by the same goroutine.
func (l *Links) Elsewhere(a netip.Addr) bool { return l.routes.to(a).elsewhere }
