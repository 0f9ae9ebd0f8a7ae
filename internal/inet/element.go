// SPDX-License-Identifier: Apache-2.0

package inet

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"

	"github.com/podwall/podwall/internal/immutable"
)

// SetKind is the type of the elements of a set.
type SetKind uint8

// The kinds of sets.
const (
	// Addrs holds addresses (Element.Addr).
	Addrs SetKind = iota + 1
	// AddrPorts holds address and destination port (Element.Addr, .Port).
	AddrPorts
	// AddrRanges holds ranges of addresses.
	AddrRanges
	// PortRanges holds ranges of destination ports. The rule that refers to the set names their
	// protocol.
	PortRanges
)

// Elements are the members of a set, as an immutable value.
type Elements = immutable.Set[Element]

// Element is a member of a set; the kind determines which fields are used.
type Element struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// Range is a range of addresses or ports, both ends inclusive.
type Range struct{ First, Last Element }

// AddrRange returns the range of the addresses of a prefix.
func AddrRange(p netip.Prefix) Range {
	return Range{Element{Addr: p.Masked().Addr()}, Element{Addr: LastAddr(p)}}
}

// LinkLocal returns the addresses of a family that mean another host on every link.
func LinkLocal(f Family) netip.Prefix {
	if f == IPv6 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16)
}

// LastAddr returns the last address of a prefix.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// Contains reports whether the element is in the range.
func (r Range) Contains(e Element) bool { return r.First.Compare(e) <= 0 && e.Compare(r.Last) <= 0 }

// Compare orders ranges by their first member.
func (r Range) Compare(o Range) int { return cmp.Or(r.First.Compare(o.First), r.Last.Compare(o.Last)) }

// Prefix returns the range as a prefix; ok is false if it is not one.
func (r Range) Prefix() (p netip.Prefix, ok bool) {
	for bits := r.First.Addr.BitLen(); bits >= 0; bits-- {
		p = netip.PrefixFrom(r.First.Addr, bits)
		if p.Masked().Addr() != r.First.Addr {
			return p, false
		}
		if LastAddr(p) == r.Last.Addr {
			return p, true
		}
	}
	return p, false
}

// Hash implements immutable.Hasher.
func (e Element) Hash() uint64 {
	b := e.Addr.As16()
	h := uint64(e.Protocol)<<16 | uint64(e.Port)
	for _, w := range [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])} {
		hi, lo := bits.Mul64(h^w^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
		h = hi ^ lo
	}
	return h
}

// Compare orders elements for printing.
func (e Element) Compare(o Element) int {
	return cmp.Or(e.Addr.Compare(o.Addr), cmp.Compare(e.Protocol, o.Protocol), cmp.Compare(e.Port, o.Port))
}

// Format returns the nft spelling of an element of the kind.
func (k SetKind) Format(e Element) string {
	switch k {
	case AddrPorts:
		return fmt.Sprintf("%s . %d", e.Addr, e.Port)
	case PortRanges:
		return strconv.Itoa(int(e.Port))
	}
	return e.Addr.String()
}

// FormatRange returns the nft spelling of a range of the kind.
func (k SetKind) FormatRange(r Range) string {
	if r.First == r.Last {
		return k.Format(r.First)
	}
	if k == AddrRanges {
		if p, ok := r.Prefix(); ok {
			return p.String()
		}
	}
	return k.Format(r.First) + "-" + k.Format(r.Last)
}

// String returns the name of the kind.
func (k SetKind) String() string {
	switch k {
	case Addrs:
		return "addresses"
	case AddrPorts:
		return "addresses and ports"
	case AddrRanges:
		return "ranges of addresses"
	case PortRanges:
		return "ranges of ports"
	}
	return "invalid"
}

// Sorted returns the elements in the order in which they are printed.
func Sorted(e Elements) []Element { return slices.SortedFunc(e.All(), Element.Compare) }
