// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

// space is a namespace and a netlink socket in it.
type space struct {
	ns *netns.NS
	*netlink.Handle
}

func newSpace(settings []netns.Sysctl) (*space, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	if err := ns.SetSysctls(settings); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening netlink: %w", err), ns.Close())
	}
	return &space{ns, h}, nil
}

func (s *space) close() error {
	s.Handle.Close()
	return s.ns.Close()
}

// Quick returns the settings of every namespace of the lab, for those that a test adds:
// nothing waits, and nothing is answered less often than asked. They must precede the
// links, which copy them.
func Quick() []netns.Sysctl {
	return []netns.Sysctl{
		{Path: "ipv6/conf/default/accept_dad", Value: "0"},
		{Path: "ipv6/conf/default/dad_transmits", Value: "0"},
		{Path: "ipv6/conf/default/accept_ra", Value: "0"},
		{Path: "ipv6/conf/default/router_solicitations", Value: "0"},
		// Bridges report their own groups a moment after they came up, and an
		// agent that drops such a report counts it.
		{Path: "ipv4/igmp_link_local_mcast_reports", Value: "0", Optional: true},
		// ICMP errors of no type are limited. Beside the limit for each destination there
		// is one for all namespaces of the machine together, in newer kernels for each.
		{Path: "ipv4/icmp_ratemask", Value: "0"},
		{Path: "ipv6/icmp/ratemask", Value: "\n", Optional: true}, // the empty list
	}
}

// ownLinkLocal keeps the kernel from making link-local addresses, which takes
// it some time; the lab gives them.
func ownLinkLocal() netns.Sysctl {
	return netns.Sysctl{Path: "ipv6/conf/default/addr_gen_mode", Value: "1"}
}

// unfilteredBridges switches the IP filtering of bridged packets off, where
// the kernel has it at all. A fresh namespace has it on.
func unfilteredBridges() []netns.Sysctl {
	var list []netns.Sysctl
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		list = append(list, netns.Sysctl{Path: "bridge/bridge-nf-call-" + name, Value: "0", Optional: true})
	}
	return list
}

// router are the settings of a node.
func router() []netns.Sysctl {
	return append(unfilteredBridges(),
		netns.Sysctl{Path: "ipv4/ip_forward", Value: "1"},
		netns.Sysctl{Path: "ipv6/conf/all/forwarding", Value: "1"},
		netns.Sysctl{Path: "ipv6/conf/default/forwarding", Value: "1"},
		netns.Sysctl{Path: "ipv6/conf/all/proxy_ndp", Value: "1"},
	)
}

// hardwareAddr is the address of the n-th link end of a bed.
func hardwareAddr(n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x70, 0x77, byte(n >> 16), byte(n >> 8), byte(n)}
}

// linkLocal is the IPv6 address that follows from a hardware address.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2],
		11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// carries reports whether a link can carry packets. The driver of taps reports no state of operation.
func carries(link netlink.Link) bool {
	a := link.Attrs()
	unknown := a.OperState == netlink.OperUnknown && link.Type() == "tuntap" && a.RawFlags&unix.IFF_LOWER_UP != 0
	return a.OperState == netlink.OperUp || unknown
}

// up returns when a link can carry packets. Until then the kernel drops them.
func (s *space) up(name string) (netlink.Link, error) {
	for end := time.Now().Add(usable); time.Now().Before(end); {
		link, err := s.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("finding link %s: %w", name, err)
		}
		if carries(link) {
			return link, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, fmt.Errorf("waiting for link %s: it did not come up in ten seconds", name)
}

// address gives a link an address and returns when the kernel answers for it.
// A link-local one the kernel may just have made itself.
func (s *space) address(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := s.AddrReplace(link, a); err != nil {
		return fmt.Errorf("adding address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return s.local(link, p.Addr())
}

// usable is how long an address of a link may take to be usable. It takes milliseconds; the kernel does it
// in a thread of its own, which waits on a busy machine, and for a bridge after its first port is up.
const usable = time.Minute

// local returns when an address of a link is in the routing table. For IPv6
// the kernel puts it there somewhat after it accepted the address, and until
// then discards what comes for it.
func (s *space) local(link netlink.Link, a netip.Addr) error {
	var o *netlink.RouteGetOptions
	if a.IsLinkLocalUnicast() {
		o = &netlink.RouteGetOptions{OifIndex: link.Attrs().Index}
	}
	for end := time.Now().Add(usable); time.Now().Before(end); {
		routes, err := s.RouteGetWithOptions(a.AsSlice(), o)
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		time.Sleep(500 * time.Microsecond)
	}
	return fmt.Errorf("waiting for address %s of %s: not usable in %s", a, link.Attrs().Name, usable)
}

// route adds a route, or replaces the one with the same destination. An
// invalid via means on-link.
func (s *space) route(link netlink.Link, dst netip.Prefix, via netip.Addr) error {
	r := routeOf(link, dst, via)
	if err := s.RouteReplace(r); err != nil {
		return fmt.Errorf("adding route %s via %s dev %s: %w", dst, via, link.Attrs().Name, err)
	}
	return nil
}

// unroute removes a route; one that is gone already is no error.
func (s *space) unroute(link netlink.Link, dst netip.Prefix, via netip.Addr) error {
	err := s.RouteDel(routeOf(link, dst, via))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("removing route %s: %w", dst, err)
	}
	return nil
}

func routeOf(link netlink.Link, dst netip.Prefix, via netip.Addr) *netlink.Route {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst)}
	if via.IsValid() {
		r.Gw, r.Flags = via.AsSlice(), int(netlink.FLAG_ONLINK)
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// single is the prefix that holds one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// everything is the prefix of all addresses of a family.
func everything(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}
