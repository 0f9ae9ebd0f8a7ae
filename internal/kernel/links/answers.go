// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answers cache the kernel's routing decisions for wanted addresses. Statuses of deleted pods may remain
// for long, and an address without a direct route would be looked up in each pass. The watch sees every
// route change that overlaps a wanted address, so an answer is valid until then.
type answers struct {
	by      map[netip.Addr]*answer
	holds   map[netip.Addr]bool // the addresses whose answers may be cached
	lookups int                 // how many lookups the kernel has answered; tests limit it
}

// answer is the kernel's routing decision for an address.
type answer struct {
	index     int  // of the output interface
	direct    bool // on-link, without a gateway
	elsewhere bool // by a gateway, or to the node itself
	network   string
	asked     bool // network was looked up
}

// keep drops the answers for all other addresses. Without a subscription, which would report changes, it
// drops all.
func (s *answers) keep(wanted map[netip.Addr]bool, subscribed bool) {
	if s.holds = wanted; !subscribed {
		s.by, s.holds = nil, nil
	}
	for a := range s.by {
		if !wanted[a] {
			delete(s.by, a)
		}
	}
}

// to returns the routing decision for a packet to the address.
func (s *answers) to(a netip.Addr) *answer {
	if known := s.by[a]; known != nil {
		return known
	}
	s.lookups++
	found := lookup(a)
	if s.holds[a] {
		if s.by == nil {
			s.by = map[netip.Addr]*answer{}
		}
		s.by[a] = found
	}
	return found
}

// network returns the route that leads the address's network elsewhere, or "". A default route does not
// count.
func (s *answers) network(a netip.Addr) string {
	known := s.to(a)
	if !known.asked {
		s.lookups++
		known.network, known.asked = networkElsewhere(a), true
	}
	return known.network
}

// lookup reads the routing decision for a packet to the address from the kernel.
func lookup(a netip.Addr) *answer {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return &answer{} // unreachable: no route is the normal case here
	}
	r := routes[0]
	direct := r.Gw == nil && r.Via == nil && r.Type == unix.RTN_UNICAST
	return &answer{index: r.LinkIndex, direct: direct, elsewhere: !direct}
}

func networkElsewhere(a netip.Addr) string {
	routes, err := netlink.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil || len(routes) == 0 {
		return ""
	}
	r := routes[0]
	if bits := prefixLength(r); bits == 0 && r.Type == unix.RTN_UNICAST {
		return ""
	}
	return "the route " + r.Dst.String()
}

func prefixLength(r netlink.Route) int {
	if r.Dst == nil {
		return 0
	}
	bits, _ := r.Dst.Mask.Size()
	return bits
}
