// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxLookups is how many addresses NoRoutes asks for beside the ranges.
const maxLookups = 256

// NoRoutes names the addresses of Services to which has reports no route: processes of the node itself
// cannot connect to them, since the kernel looks for a route before the rules translate. Pods are not
// concerned: their packets are translated before. Ranges are those of cluster addresses; addrs are others
// of which some are asked for, such as external ones, and those of a family without ranges.
func NoRoutes(ranges []netip.Prefix, addrs []netip.Addr, has func(netip.Addr) (bool, error)) []Problem {
	var missing []string
	var failed error
	ask := func(a netip.Addr, name string) {
		ok, err := has(a)
		failed = errors.Join(failed, err)
		if err == nil && !ok {
			missing = append(missing, name)
		}
	}
	for _, r := range ranges {
		a := r.Masked().Addr()
		if next := a.Next(); r.Contains(next) { // the first address of an IPv4 range may be a broadcast address
			a = next
		}
		ask(a, r.Masked().String())
	}
	asked := 0
	for _, a := range addrs {
		if asked == maxLookups {
			break
		}
		if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) }) {
			asked++
			ask(a, a.String())
		}
	}
	var list []Problem
	if len(missing) > 0 {
		few := missing[:min(len(missing), 3)]
		list = append(list, Problem{"routes to Services",
			fmt.Sprintf("processes of the node itself cannot connect to Services at %s (%d in all): the node has no "+
				"route there", strings.Join(few, ", "), len(missing)),
			"add a default route, or one for each range by the interface that leads to other nodes: ip route add " +
				few[0] + " dev INTERFACE"})
	}
	if failed != nil {
		list = append(list, Problem{"routes to Services", fmt.Sprintf("cannot look for routes: %v", failed),
			"see the error"})
	}
	return list
}

// HasRoute reports whether processes of this node have a route to an address.
func HasRoute(a netip.Addr) (bool, error) {
	routes, err := netlink.RouteGet(a.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), // none, or type unreachable
		errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL): // types prohibit and blackhole
		return false, nil
	case err != nil:
		return false, fmt.Errorf("asking for a route to %s: %w", a, err)
	}
	return len(routes) > 0, nil
}
