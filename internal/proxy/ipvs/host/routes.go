// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// protocol marks our routes: its number is free in the lists of the kernel and of iproute2, and programs that
// keep routes leave those of other protocols alone.
const protocol = 119

// metric keeps a route of ours apart from one of an interface that has the same address.
const metric = 119

// routes make addresses of Services addresses of the node, by routes in the kernel's table local and not on an
// interface: then they are among the node's own addresses nowhere else, and the node has another source to
// connect to them.
type routes struct {
	handle *netlink.Handle
	lo     int
}

// openRoutes connects to the kernel, in the network namespace of the calling thread.
func openRoutes() (*routes, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("connecting to the kernel's routes: %w", err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("looking for interface lo: %w", err)
	}
	return &routes{h, lo.Attrs().Index}, nil
}

func (r *routes) close() { r.handle.Close() }

// list returns the addresses of a family that have a route of ours, each with its source, if it has one.
func (r *routes) list(f inet.Family) (map[netip.Addr]netip.Addr, error) {
	of := netlink.FAMILY_V4
	if f == inet.IPv6 {
		of = netlink.FAMILY_V6
	}
	found, err := r.handle.RouteListFiltered(of, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Protocol: protocol},
		netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of Services: %w", err)
	}
	all := map[netip.Addr]netip.Addr{}
	for _, one := range found {
		if one.Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(one.Dst.IP); ok {
			source, _ := netip.AddrFromSlice(one.Src)
			all[a.Unmap()] = source.Unmap()
		}
	}
	return all, nil
}

// add makes an address one of the node. The node connects to it from source, if it has that one; the source of
// the route is returned. An address that is there already gets this source.
func (r *routes) add(a, source netip.Addr) (netip.Addr, error) {
	one := r.route(a)
	if source.IsValid() {
		one.Src = net.IP(source.AsSlice())
	}
	err := r.handle.RouteReplace(one)
	if errors.Is(err, unix.EINVAL) && one.Src != nil {
		one.Src, source = nil, netip.Addr{} // the node has lost that address meanwhile
		err = r.handle.RouteReplace(one)
	}
	if err != nil {
		return source, fmt.Errorf("adding %s to the node's addresses: %w", a, err)
	}
	return source, nil
}

// remove takes an address away. One that is not there is no error.
func (r *routes) remove(a netip.Addr) error {
	err := r.handle.RouteDel(r.route(a))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("removing %s from the node's addresses: %w", a, err)
	}
	return nil
}

func (r *routes) route(a netip.Addr) *netlink.Route {
	return &netlink.Route{Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: protocol,
		Priority: metric, LinkIndex: r.lo}
}
