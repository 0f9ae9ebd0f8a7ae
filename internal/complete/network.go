// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"net/netip"
	"slices"
)

// Network is the network between nodes that have no addresses of their own: an IPv4 /24
// and an IPv6 /64. Hosts outside may be in it too.
type Network struct{ four, six netip.Prefix }

// firstNode is the number of the first node in the network.
const firstNode = 11

// MaxNodes is how many nodes a network has addresses for.
const MaxNodes = 255 - firstNode

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

// Prefixes returns the two subnets, IPv4 first.
func (n Network) Prefixes() []netip.Prefix { return []netip.Prefix{n.four, n.six} }

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
