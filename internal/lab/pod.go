// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/cluster"
)

// PodSpec describes a pod to make.
type PodSpec struct {
	Key  cluster.Key
	Node string
	// IPs are any addresses. The CNI plugins give the first of each family. On wirings
	// with a subnet the first address of the surrounding IPv4 /24 and IPv6 /64 belongs
	// to the node, or another one that Config.Used does not have.
	IPs []netip.Addr
}

// AddPod makes a pod; it carries traffic when AddPod returns.
func (b *Bed) AddPod(spec PodSpec) (*Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.addPod(spec)
	if err != nil {
		return nil, fmt.Errorf("adding pod %s: %w", spec.Key, err)
	}
	return p.Endpoint, nil
}

func (b *Bed) addPod(spec PodSpec) (*pod, error) {
	name, n := spec.Key.String(), b.nodes[spec.Node]
	if n == nil {
		return nil, fmt.Errorf("there is no node %q", spec.Node)
	}
	if b.taken(name) {
		return nil, errors.New("there is an endpoint with this name")
	}
	if err := b.free(spec.IPs); err != nil {
		return nil, err
	}
	settings := Quick()
	if b.cfg.Wiring.plain() {
		settings = append(settings, ownLinkLocal())
	}
	space, err := newSpace(settings)
	if err != nil {
		return nil, err
	}
	e := &Endpoint{Kind: PodEndpoint, Name: name, Node: spec.Node, Addrs: slices.Clone(spec.IPs), NS: space.ns,
		HostDevice: hostDevice(name)}
	p := &pod{member: member{Endpoint: e, space: space}, node: n}
	b.pods[name] = p
	if err := b.introducePod(p); err != nil {
		return nil, errors.Join(err, b.removePod(p))
	}
	return p, nil
}

// hostDevice is the name of a pod's link in the node.
func hostDevice(name string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return fmt.Sprintf("veth%08x", h.Sum32())
}

func (b *Bed) introducePod(p *pod) error {
	if err := b.wirer.attach(p); err != nil {
		return err
	}
	for _, other := range b.outsiders() {
		if other.Endpoint == p.node.Endpoint {
			continue
		}
		if err := other.reach(p.Addrs, p.node); err != nil {
			return err
		}
	}
	return b.proxyAll()
}

// RemovePod takes a pod away; an unknown one is no error.
func (b *Bed) RemovePod(key cluster.Key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pods[key.String()]
	if p == nil {
		return nil
	}
	if err := b.removePod(p); err != nil {
		return fmt.Errorf("removing pod %s: %w", key, err)
	}
	return nil
}

func (b *Bed) removePod(p *pod) error {
	delete(b.pods, p.Name)
	errs := []error{b.wirer.detach(p)}
	for _, other := range b.outsiders() {
		if other.Endpoint != p.node.Endpoint {
			errs = append(errs, other.forget(p.Addrs, p.node))
		}
	}
	return errors.Join(append(errs, b.unlearnPod(p), b.proxyAll(), p.close())...)
}

// unlearnPod makes those who were on one bridge with the pod forget it.
func (b *Bed) unlearnPod(p *pod) error {
	n := p.node
	if n.bridge == nil {
		return nil
	}
	errs := []error{n.unlearn(n.bridge, p.Addrs)}
	for _, other := range b.pods {
		if other.node == n && other.link != nil {
			errs = append(errs, other.unlearn(other.link, p.Addrs))
		}
	}
	return errors.Join(errs...)
}

func (b *Bed) taken(name string) bool {
	return b.nodes[name] != nil || b.pods[name] != nil || b.hosts[name] != nil
}

// free reports an address that somebody has.
func (b *Bed) free(addrs []netip.Addr) error {
	for _, a := range addrs {
		owner := b.holder(a)
		for _, n := range b.nodes {
			if slices.ContainsFunc(n.subnets, func(s netip.Prefix) bool { return b.plan.gateway(s) == a }) {
				owner = "the bridge of " + n.Name
			}
		}
		if owner != "" {
			return fmt.Errorf("address %s is used by %s", a, owner)
		}
	}
	return nil
}

// holder returns the name of the endpoint that has an address, or nothing.
func (b *Bed) holder(a netip.Addr) string {
	all := b.outsiders()
	for _, p := range b.pods {
		all = append(all, &p.member)
	}
	for _, m := range all {
		if slices.Contains(m.Addrs, a) {
			return m.Name
		}
	}
	return ""
}

// reach adds host routes to addresses: through a node, or on-link when that is
// nil.
func (m *member) reach(addrs []netip.Addr, through *node) error {
	for _, a := range addrs {
		if err := m.route(m.link, single(a), via(a, through)); err != nil {
			return fmt.Errorf("on %s: %w", m.Name, err)
		}
	}
	return nil
}

func (m *member) forget(addrs []netip.Addr, through *node) error {
	var errs []error
	for _, a := range addrs {
		errs = append(errs, m.unroute(m.link, single(a), via(a, through)))
	}
	if through == nil {
		errs = append(errs, m.unlearn(m.link, addrs))
	}
	return errors.Join(errs...)
}

func via(a netip.Addr, through *node) netip.Addr {
	if through == nil {
		return netip.Addr{}
	}
	return through.Addrs[family(a)]
}

// family is the index of an address's family in the addresses of a node.
func family(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// proxyAll makes every node answer, on the link of its pods, for the addresses
// that lie in the pods' subnet and live elsewhere: the pods think that these
// are on-link.
func (b *Bed) proxyAll() error {
	for _, n := range b.nodes {
		if n.bridge == nil {
			continue
		}
		want := map[netip.Addr]bool{}
		for _, a := range b.elsewhere(n) {
			if slices.ContainsFunc(n.subnets, func(s netip.Prefix) bool { return s.Contains(a) }) {
				want[a] = true
			}
		}
		if err := n.proxy(want); err != nil {
			return fmt.Errorf("on %s: %w", n.Name, err)
		}
	}
	return nil
}

func (b *Bed) elsewhere(n *node) []netip.Addr {
	var list []netip.Addr
	for _, p := range b.pods {
		if p.node != n {
			list = append(list, p.Addrs...)
		}
	}
	for _, h := range b.hosts {
		list = append(list, h.Addrs...)
	}
	return list
}

func (n *node) proxy(want map[netip.Addr]bool) error {
	for a := range n.proxied {
		if !want[a] {
			// The kernel drops them itself when the bridge has no port any more.
			if err := n.NeighDel(n.proxyEntry(a)); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("ending to answer for %s: %w", a, err)
			}
			delete(n.proxied, a)
		}
	}
	for a := range want {
		if err := n.NeighSet(n.proxyEntry(a)); err != nil {
			return fmt.Errorf("answering for %s: %w", a, err)
		}
		n.proxied[a] = true
	}
	return nil
}

func (n *node) proxyEntry(a netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: n.bridge.Attrs().Index, Family: addressFamily(a), Flags: netlink.NTF_PROXY,
		IP: a.AsSlice()}
}
