// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// Network is the network between the nodes of a bed: an IPv4 /24 and an IPv6 /64.
// Hosts outside have addresses of their own on it.
type Network struct{ four, six netip.Prefix }

// firstNode is the number of the first node in the network.
const firstNode = 11

// FreeNetwork returns a network that holds none of the addresses: 172.30.0.0/24 and
// fd00:172:30::/64 if they do not.
func FreeNetwork(used []netip.Addr) Network {
	free := func(prefix func(n byte) netip.Prefix) netip.Prefix {
		for n := range 256 {
			if p := prefix(byte(n)); !slices.ContainsFunc(used, p.Contains) {
				return p
			}
		}
		return prefix(0) // then adding the nodes fails and says whose address it is
	}
	return Network{
		four: free(func(n byte) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, n}), 24)
		}),
		six: free(func(n byte) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0x01, 0x72, 0, 0x30 + n}), 64)
		}),
	}
}

// Contains reports whether the address is one of the network.
func (n Network) Contains(a netip.Addr) bool { return n.four.Contains(a) || n.six.Contains(a) }

// Node returns the addresses of the node with that index, counted from 0: one IPv4
// and one IPv6 address.
func (n Network) Node(index int) []netip.Addr {
	four, six := n.four.Addr().As4(), n.six.Addr().As16()
	number := firstNode + index
	four[3] = byte(number)
	// Decimal digits, so that both addresses of a node end alike.
	six[14], six[15] = byte(number/100), byte(number/10%10<<4|number%10)
	return []netip.Addr{netip.AddrFrom4(four), netip.AddrFrom16(six)}
}

// maxNodes is how many nodes a network has addresses for.
const maxNodes = 255 - firstNode

func (n Network) prefixes() []netip.Prefix { return []netip.Prefix{n.four, n.six} }

// plan is which addresses a bed uses for itself.
type plan struct {
	network Network
	// bits is the size of the IPv4 subnets of bridges.
	bits int
	used map[netip.Addr]bool
	// gateways are the nodes' addresses on their bridges, by subnet.
	gateways map[netip.Prefix]netip.Addr
}

// newPlan keeps away from the used addresses. Bridges have subnets in which the pods can
// have theirs.
func newPlan(used, pods []netip.Addr) *plan {
	p := &plan{network: FreeNetwork(used), bits: 24, used: map[netip.Addr]bool{}, gateways: map[netip.Prefix]netip.Addr{}}
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
	if len(names) > maxNodes {
		return fmt.Errorf("%d nodes, the lab has addresses for %d", len(names), maxNodes)
	}
	return nil
}
