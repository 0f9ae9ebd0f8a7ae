// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// newFabric makes the namespace with the switch between nodes and hosts.
func newFabric() (*space, error) {
	settings := append(Quick(), unfilteredBridges()...)
	fabric, err := newSpace(append(settings, ownLinkLocal()))
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags, attrs.HardwareAddr = "fabric", net.FlagUp, hardwareAddr(0)
	if err := fabric.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, errors.Join(fmt.Errorf("making the switch: %w", err), fabric.close())
	}
	return fabric, nil
}

// veth makes a pair of links: eth0 in the namespace inside, and name in the
// namespace outside, a port of the bridge master unless that is nil.
func (b *Bed) veth(outside, inside *space, name string, master netlink.Link) (*netlink.Veth, error) {
	b.links += 2
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Flags = name, hardwareAddr(b.links), net.FlagUp
	if master != nil {
		attrs.MasterIndex = master.Attrs().Index
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr = device, hardwareAddr(b.links+1)
	veth.PeerNamespace = netlink.NsFd(inside.ns.FD())
	if err := outside.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("making link %s: %w", name, err)
	}
	return veth, nil
}

// raise sets eth0 up, gives it the addresses, and returns it when both ends
// carry packets.
func raise(outside, inside *space, name string, addrs []netip.Prefix) (netlink.Link, error) {
	link, err := inside.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("finding link %s: %w", device, err)
	}
	if err := inside.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("setting %s up: %w", device, err)
	}
	if err := inside.patient(link); err != nil {
		return nil, err
	}
	for _, a := range append(addrs, netip.PrefixFrom(linkLocal(link.Attrs().HardwareAddr), 64)) {
		if err := inside.address(link, a); err != nil {
			return nil, err
		}
	}
	if _, err := outside.up(name); err != nil {
		return nil, err
	}
	return inside.up(device)
}

// plug connects a namespace to the fabric.
func (b *Bed) plug(m *member, addrs []netip.Prefix) error {
	master, err := b.fabric.LinkByName("fabric")
	if err != nil {
		return fmt.Errorf("finding the switch: %w", err)
	}
	name := fmt.Sprintf("port%d", b.links)
	if _, err := b.veth(b.fabric, m.space, name, master); err != nil {
		return err
	}
	m.link, err = raise(b.fabric, m.space, name, addrs)
	if err != nil {
		return err
	}
	m.LinkLocal = linkLocal(m.link.Attrs().HardwareAddr)
	_, err = b.fabric.up("fabric")
	return err
}

func (b *Bed) addNode(index int, name string) error {
	if b.nodes[name] != nil {
		return errors.New("there is one with this name")
	}
	addrs := b.plan.network.Node(index)
	settings := append(Quick(), router()...)
	if b.cfg.Wiring.plain() {
		settings = append(settings, ownLinkLocal())
	}
	space, err := newSpace(settings)
	if err != nil {
		return err
	}
	table, err := newServiceTable(space)
	if err != nil {
		return errors.Join(err, space.close())
	}
	e := &Endpoint{Kind: NodeEndpoint, Name: name, Node: name, Addrs: addrs, NS: space.ns}
	n := &node{member: member{Endpoint: e, space: space}, index: index, table: table, proxied: map[netip.Addr]bool{}}
	b.nodes[name] = n
	var prefixes []netip.Prefix
	for i, p := range b.plan.network.Prefixes() {
		prefixes = append(prefixes, netip.PrefixFrom(addrs[i], p.Bits()))
	}
	if err := b.plug(&n.member, prefixes); err != nil {
		return err
	}
	return b.wirer.prepare(n)
}

// AddHost adds a host outside the cluster, with any addresses, also with such
// that lie in a range of pods.
func (b *Bed) AddHost(name string, addrs []netip.Addr) (*Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken(name) {
		return nil, fmt.Errorf("adding host %s: there is an endpoint with this name", name)
	}
	if err := b.free(addrs); err != nil {
		return nil, fmt.Errorf("adding host %s: %w", name, err)
	}
	space, err := newSpace(append(Quick(), ownLinkLocal()))
	if err != nil {
		return nil, fmt.Errorf("adding host %s: %w", name, err)
	}
	h := &host{member{Endpoint: &Endpoint{Kind: HostEndpoint, Name: name, Addrs: addrs, NS: space.ns}, space: space}}
	if err := b.introduceHost(h); err != nil {
		return nil, errors.Join(fmt.Errorf("adding host %s: %w", name, err), b.removeHost(h))
	}
	return h.Endpoint, nil
}

func (b *Bed) introduceHost(h *host) error {
	var prefixes []netip.Prefix
	for _, a := range h.Addrs {
		prefixes = append(prefixes, single(a))
	}
	if err := b.plug(&h.member, prefixes); err != nil {
		return err
	}
	for _, p := range b.plan.network.Prefixes() {
		if err := h.route(h.link, p, netip.Addr{}); err != nil {
			return err
		}
	}
	for _, other := range b.outsiders() {
		if err := other.reach(h.Addrs, nil); err != nil {
			return err
		}
		if other.Kind == HostEndpoint {
			if err := h.reach(other.Addrs, nil); err != nil {
				return err
			}
		}
	}
	for _, p := range b.pods {
		if err := h.reach(p.Addrs, p.node); err != nil {
			return err
		}
	}
	b.hosts[h.Name] = h
	return b.proxyAll()
}

// RemoveHost takes a host away; an unknown one is no error.
func (b *Bed) RemoveHost(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.hosts[name]; h != nil {
		return b.removeHost(h)
	}
	return nil
}

func (b *Bed) removeHost(h *host) error {
	delete(b.hosts, h.Name)
	errs := []error{h.cut()}
	for _, other := range b.outsiders() {
		errs = append(errs, other.forget(h.Addrs, nil))
	}
	return errors.Join(append(errs, b.proxyAll(), h.close())...)
}

// cut removes the link, if there is one. The kernel would do it too, but some
// time after the namespace is gone; until then the host would answer for its
// addresses.
func (h *host) cut() error {
	if h.link == nil {
		return nil
	}
	if err := h.LinkDel(h.link); err != nil {
		return fmt.Errorf("removing the link of %s: %w", h.Name, err)
	}
	return nil
}

// outsiders are the members that are on the fabric themselves.
func (b *Bed) outsiders() []*member {
	var list []*member
	for _, n := range b.nodes {
		list = append(list, &n.member)
	}
	for _, h := range b.hosts {
		list = append(list, &h.member)
	}
	return list
}
