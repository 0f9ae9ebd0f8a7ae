// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/persist"
)

// SetKind says what the elements of a set are.
type SetKind uint8

// The kinds of sets.
const (
	// Addrs holds addresses (Element.Addr).
	Addrs SetKind = iota + 1
	// AddrPorts holds address and destination port (Element.Addr, .Port).
	AddrPorts
	// ProtocolPorts holds protocol and destination port (Element.Protocol, .Port).
	ProtocolPorts
	// Prefixes holds disjoint prefixes (Element.Addr, .Bits).
	Prefixes
)

// Set is a named set. The name is derived from what the set means (a selector,
// a list of prefixes), never from its members.
type Set struct {
	Name   string
	Kind   SetKind
	Family Family // zero for ProtocolPorts
	// Comment says what the members have in common, for people.
	Comment  string
	Elements Elements
}

// Elements are the members of a set, as an immutable value.
type Elements = persist.Set[Element]

// Element is a member of a set; which fields count is said by the kind.
type Element struct {
	Addr     netip.Addr
	Bits     uint8
	Protocol Protocol
	Port     uint16
}

// Hash implements persist.Hasher.
func (e Element) Hash() uint64 {
	b := e.Addr.As16()
	h := uint64(e.Bits)<<24 | uint64(e.Protocol)<<16 | uint64(e.Port)
	for _, w := range [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])} {
		hi, lo := bits.Mul64(h^w^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
		h = hi ^ lo
	}
	return h
}

// Compare orders elements for printing.
func (e Element) Compare(o Element) int {
	return cmp.Or(e.Addr.Compare(o.Addr), cmp.Compare(e.Bits, o.Bits),
		cmp.Compare(e.Protocol, o.Protocol), cmp.Compare(e.Port, o.Port))
}

// Format returns the nft spelling of an element of the kind.
func (k SetKind) Format(e Element) string {
	switch k {
	case AddrPorts:
		return fmt.Sprintf("%s . %d", e.Addr, e.Port)
	case ProtocolPorts:
		return fmt.Sprintf("%s . %d", e.Protocol, e.Port)
	case Prefixes:
		return netip.PrefixFrom(e.Addr, int(e.Bits)).String()
	}
	return e.Addr.String()
}

// String returns the name of the kind.
func (k SetKind) String() string {
	switch k {
	case Addrs:
		return "addresses"
	case AddrPorts:
		return "addresses and ports"
	case ProtocolPorts:
		return "protocols and ports"
	case Prefixes:
		return "prefixes"
	}
	return "invalid"
}

// Sorted returns the elements in the order in which they are printed.
func Sorted(e Elements) []Element { return slices.SortedFunc(e.All(), Element.Compare) }

// contains asks the set for what the packet has.
func (s *Set) contains(a netip.Addr, p Protocol, port uint16) bool {
	switch s.Kind {
	case Addrs:
		return s.Elements.Has(Element{Addr: a})
	case AddrPorts:
		return s.Elements.Has(Element{Addr: a, Port: port})
	case ProtocolPorts:
		return s.Elements.Has(Element{Protocol: p, Port: port})
	case Prefixes:
		for e := range s.Elements.All() {
			if netip.PrefixFrom(e.Addr, int(e.Bits)).Contains(a) {
				return true
			}
		}
	}
	return false
}
