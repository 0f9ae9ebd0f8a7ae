// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routed wires pods as VPC style plugins do: the pod sends everything to an
// address that nobody has, whose hardware address is written down; the node has
// a host route to the pod.
type routed struct{ bed *Bed }

func (routed) prepare(*node) error { return nil }
func (routed) detach(p *pod) error { return p.unlink() }

func (r routed) attach(p *pod) error {
	var own []netip.Prefix
	for _, a := range p.Addrs {
		own = append(own, single(a))
	}
	outer, err := r.join(p)
	if err != nil {
		return err
	}
	if err := p.node.patient(outer); err != nil {
		return err
	}
	hardware := outer.Attrs().HardwareAddr
	local := linkLocal(hardware)
	if err := p.node.address(outer, netip.PrefixFrom(local, 64)); err != nil {
		return err
	}
	if p.link, err = raise(p.node.space, p.space, p.HostDevice, own); err != nil {
		return err
	}
	p.LinkLocal = linkLocal(p.link.Attrs().HardwareAddr)
	nowhere := netip.AddrFrom4([4]byte{169, 254, 1, 1})
	if err := p.fixed(nowhere, hardware); err != nil {
		return err
	}
	for _, a := range p.Addrs {
		next := nowhere
		if a.Is6() {
			next = local
		}
		if err := p.node.route(outer, single(a), netip.Addr{}); err != nil {
			return err
		}
		if err := p.route(p.link, everything(a.Is6()), next); err != nil {
			return err
		}
	}
	return nil
}

// join makes the pod's link, and returns the node's end of it.
func (r routed) join(p *pod) (netlink.Link, error) {
	if r.bed.cfg.Wiring == Tap {
		return r.bed.tapped(p)
	}
	return r.bed.veth(p.node.space, p.space, p.HostDevice, nil)
}

// plain reports whether the lab wires by itself, without plugins.
func (w Wiring) plain() bool { return w == Routed || w == Bridge || w == Tap }

// fixed writes a neighbour's hardware address down for good.
func (m *member) fixed(a netip.Addr, mac net.HardwareAddr) error {
	err := m.NeighSet(&netlink.Neigh{LinkIndex: m.link.Attrs().Index, State: netlink.NUD_PERMANENT,
		Family: unix.AF_INET, IP: a.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("adding neighbour %s: %w", a, err)
	}
	return nil
}

// unlink removes the pod's link, if there is one. The kernel would do it too,
// but some time after the namespace is gone.
func (p *pod) unlink() error {
	link, err := p.node.LinkByName(p.HostDevice)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = p.node.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("removing link %s: %w", p.HostDevice, err)
	}
	return nil
}

// bridged wires pods as the CNI plugin "bridge" does.
type bridged struct{ bed *Bed }

func (bridged) prepare(n *node) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags, attrs.HardwareAddr = BridgeName, net.FlagUp, hardwareAddr(0xff0000+n.index)
	if err := n.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("making bridge %s: %w", BridgeName, err)
	}
	link, err := n.LinkByName(BridgeName)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", BridgeName, err)
	}
	if err := n.patient(link); err != nil {
		return err
	}
	n.bridge = link
	return n.address(link, netip.PrefixFrom(linkLocal(attrs.HardwareAddr), 64))
}

func (bridged) detach(p *pod) error { return p.unlink() }

func (w bridged) attach(p *pod) error {
	var own []netip.Prefix
	for _, a := range p.Addrs {
		s := w.bed.plan.subnet(a)
		if w.bed.plan.gateway(s) == a {
			return fmt.Errorf("address %s belongs to the node", a)
		}
		if err := w.addSubnet(p.node, s); err != nil {
			return err
		}
		own = append(own, netip.PrefixFrom(a, s.Bits()))
	}
	outer, err := w.bed.veth(p.node.space, p.space, p.HostDevice, p.node.bridge)
	if err != nil {
		return err
	}
	// A bridge that shows its packets translates addresses of Services while it
	// forwards: a pod that reaches itself through one goes out by the port it came in.
	// Network plugins set this for that (hairpinMode).
	if w.bed.cfg.Hairpin {
		if err := p.node.LinkSetHairpin(outer, true); err != nil {
			return fmt.Errorf("setting hairpin mode of %s: %w", p.HostDevice, err)
		}
	}
	if p.link, err = raise(p.node.space, p.space, p.HostDevice, own); err != nil {
		return err
	}
	p.LinkLocal = linkLocal(p.link.Attrs().HardwareAddr)
	if _, err := p.node.up(BridgeName); err != nil {
		return err
	}
	for _, a := range p.Addrs {
		if err := p.route(p.link, everything(a.Is6()), w.bed.plan.gatewayOf(a)); err != nil {
			return err
		}
	}
	return nil
}

func (w bridged) addSubnet(n *node, s netip.Prefix) error {
	if slices.Contains(n.subnets, s) {
		return nil
	}
	// Two nodes with pods of one subnet both have its first address, as with
	// any anycast gateway; only endpoints must not have it.
	if owner := w.bed.holder(w.bed.plan.gateway(s)); owner != "" {
		return fmt.Errorf("address %s is needed on %s and used by %s", w.bed.plan.gateway(s), BridgeName, owner)
	}
	n.subnets = append(n.subnets, s)
	return n.address(n.bridge, netip.PrefixFrom(w.bed.plan.gateway(s), s.Bits()))
}
