// SPDX-License-Identifier: Apache-2.0

// Package inet holds the values that programs, rulesets and drivers share: IP
// families, protocols, ports, and the elements of sets. It knows no policy and no
// kernel interface.
package inet

import (
	"fmt"
	"net/netip"
)

// Protocol is an IP protocol number. Zero stands for every protocol.
type Protocol uint8

// The protocols that rules can name.
const (
	AnyProtocol Protocol = 0
	TCP         Protocol = 6
	UDP         Protocol = 17
	SCTP        Protocol = 132
)

// String returns the nft spelling.
func (p Protocol) String() string {
	switch p {
	case AnyProtocol:
		return "any"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("%d", uint8(p))
}

// HasPorts reports whether packets of the protocol have ports: TCP, UDP and SCTP.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// Family is an IP family.
type Family uint8

// The families. The zero value is none of them.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both, in the order in which they are printed.
var Families = [...]Family{IPv4, IPv6}

// FamilyOf returns the family of an (unmapped) address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// PortRange is an inclusive range of ports. The zero value means no constraint;
// port 0 alone cannot be written, and the API has no such port.
type PortRange struct{ First, Last uint16 }

// Any reports whether the range is no constraint.
func (r PortRange) Any() bool { return r == PortRange{} }

// Contains reports whether the port is in the range, or the range is no
// constraint.
func (r PortRange) Contains(p uint16) bool { return r.Any() || r.First <= p && p <= r.Last }

// String returns the port, or first-last.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
