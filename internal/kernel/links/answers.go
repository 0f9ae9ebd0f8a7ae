// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answers are what the kernel said of the routes to wanted addresses. Statuses of
// pods that are gone stay for long, and an address without a direct route would be
// asked for in each pass. The watch hears of every route that overlaps a wanted
// address, so the answers hold until then.
type answers struct {
	by      map[netip.Addr]*answer
	holds   map[netip.Addr]bool // the addresses whose answers hold
	lookups int                 // how often the kernel was asked; tests guard it
}

// answer is what the kernel said of the routes to an address.
type answer struct {
	index     int  // of the interface that a packet would leave by
	direct    bool // it would go there without a gateway
	elsewhere bool // it would leave by a gateway or stay on the node itself
	network   string
	asked     bool // for the network
}

// keep has only answers for these addresses hold. Without a subscription, which
// would tell of a change, none does.
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

// to returns how a packet to the address would go.
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

// network returns where a route leads that knows the address's network to be
// elsewhere, or "". A default gateway knows nothing.
func (s *answers) network(a netip.Addr) string {
	known := s.to(a)
	if !known.asked {
		s.lookups++
		known.network, known.asked = networkElsewhere(a), true
	}
	return known.network
}

// lookup asks the kernel how a packet to the address would go.
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
