// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	own "github.com/podwall/podwall/internal/lab/netns"
)

const (
	switchName = "fabric"
	uplink     = "eth0" // of a node, into the fabric
)

// handle opens netlink in a namespace.
func handle(ns *own.NS) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD()))
	if err != nil {
		return nil, fmt.Errorf("opening netlink in a namespace: %w", err)
	}
	return h, nil
}

// within runs f with netlink in a namespace.
func within(ns *own.NS, f func(h *netlink.Handle) error) error {
	h, err := handle(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

// router has a namespace forward packets. Duplicate address detection would keep
// IPv6 addresses from being used for a second or two.
func router() []own.Sysctl {
	return []own.Sysctl{
		{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv6/conf/all/forwarding", Value: "1", Optional: true},
		{Path: "ipv4/conf/all/rp_filter", Value: "0"},
		{Path: "ipv6/conf/default/accept_dad", Value: "0", Optional: true}, {Path: "ipv6/conf/all/accept_dad",
			Value: "0", Optional: true}}
}

// newFabric makes the network between the nodes: a namespace with a switch,
// which has the addresses of the control plane.
func newFabric(p plan) (*own.NS, error) {
	ns, err := own.New()
	if err != nil {
		return nil, err
	}
	if err := ns.SetSysctls(router()); err != nil {
		return ns, err
	}
	return ns, within(ns, func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Flags = switchName, net.FlagUp
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("making the switch: %w", err)
		}
		return raise(h, switchName, p.fabric(1))
	})
}

// raise sets a link up and gives it addresses.
func raise(h *netlink.Handle, name string, addrs []netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting link %s up: %w", name, err)
	}
	for _, a := range addrs {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", name, a, err)
		}
	}
	return nil
}

// plug connects node i to the fabric and tells all where its pods are.
func (c *Cluster) plug(n *Node) error {
	err := within(c.fabric, func(h *netlink.Handle) error {
		master, err := h.LinkByName(switchName)
		if err != nil {
			return fmt.Errorf("finding the switch: %w", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Flags, attrs.MasterIndex = fmt.Sprintf("node%d", n.index), net.FlagUp, master.Attrs().Index
		// The kernel takes a while to end the namespace that the node had before it
		// lost its power, and this link with it.
		if old, err := h.LinkByName(attrs.Name); err == nil {
			if err := h.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("disconnecting %s: %w", n.Name, err)
			}
		}
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = uplink, netlink.NsFd(n.ns.FD())
		if err := h.LinkAdd(pair); err != nil {
			return fmt.Errorf("connecting %s: %w", n.Name, err)
		}
		return routes(h, c.plan.pods(n.index), c.plan.node(n.index))
	})
	if err != nil {
		return err
	}
	return within(n.ns, func(h *netlink.Handle) error {
		if err := raise(h, uplink, c.plan.node(n.index)); err != nil {
			return err
		}
		// Packets to a service need a route before kube-proxy gives them another
		// address. Behind this one is the control plane, and nothing else.
		if err := routes(h, c.plan.everywhere(), c.plan.fabric(1)); err != nil {
			return err
		}
		for j := 1; j <= c.options.Nodes; j++ {
			if j == n.index {
				continue
			}
			if err := routes(h, c.plan.pods(j), c.plan.node(j)); err != nil {
				return err
			}
		}
		return nil
	})
}

// routes leads each destination by the gateway of its family.
func routes(h *netlink.Handle, to, via []netip.Prefix) error {
	for i := range to {
		if err := h.RouteReplace(&netlink.Route{Dst: ipNet(to[i]), Gw: via[i].Addr().AsSlice()}); err != nil {
			return fmt.Errorf("routing %s by %s: %w", to[i], via[i].Addr(), err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
