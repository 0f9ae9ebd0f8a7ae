// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/complete"
)

// plan is which addresses a bed uses for itself.
type plan struct {
	network complete.Network
	// bits is the size of the IPv4 subnets of bridges.
	bits int
	used map[netip.Addr]bool
	// gateways are the nodes' addresses on their bridges, by subnet.
	gateways map[netip.Prefix]netip.Addr
}

// newPlan keeps away from the used addresses. Bridges have subnets in which the pods can
// have theirs.
func newPlan(used, pods []netip.Addr) *plan {
	p := &plan{network: complete.FreeNetwork(used), bits: 24, used: map[netip.Addr]bool{},
		gateways: map[netip.Prefix]netip.Addr{}}
	for _, a := range used {
		p.used[a] = true
	}
	for p.bits > 8 && slices.ContainsFunc(pods, p.atEdge) {
		p.bits--
	}
	return p
}

// atEdge reports whether no host can have the address in its subnet: it is that of
// the subnet itself, or its broadcast address.
func (p *plan) atEdge(a netip.Addr) bool {
	s := p.subnet(a)
	return a.Is4() && (a == s.Addr() || !s.Contains(a.Next()))
}

// subnet is the on-link subnet around a pod's address.
func (p *plan) subnet(a netip.Addr) netip.Prefix {
	bits := p.bits
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// gateway is the node's address in a subnet: the first one that nobody uses.
func (p *plan) gateway(s netip.Prefix) netip.Addr {
	if a, known := p.gateways[s]; known {
		return a
	}
	a := s.Addr().Next()
	for p.used[a] && s.Contains(a.Next()) {
		a = a.Next()
	}
	p.gateways[s] = a
	return a
}

// gatewayOf is the node's address in the subnet of a pod's address.
func (p *plan) gatewayOf(a netip.Addr) netip.Addr { return p.gateway(p.subnet(a)) }

// checkNodes refuses more nodes than there are addresses.
func checkNodes(names []string) error {
	if len(names) > complete.MaxNodes {
		return fmt.Errorf("%d nodes, the lab has addresses for %d", len(names), complete.MaxNodes)
	}
	return nil
}
