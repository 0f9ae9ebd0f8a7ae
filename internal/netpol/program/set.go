// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// Set is a named set. The name is derived from the meaning of the set (a selector, a list of
// prefixes), never from its members.
type Set struct {
	Name   string
	Kind   inet.SetKind
	Family inet.Family // zero for ranges of ports
	// Comment describes the members, for people.
	Comment string
	// Elements are the members of a set of kind Addrs or AddrPorts.
	Elements inet.Elements
	// Ranges are the members of the other kinds: sorted, and neither overlapping
	// nor adjacent.
	Ranges []inet.Range
}

// contains reports whether the address or the port is in the set.
func (s *Set) contains(a netip.Addr, port uint16) bool {
	switch s.Kind {
	case inet.Addrs:
		return s.Elements.Has(inet.Element{Addr: a})
	case inet.AddrPorts:
		return s.Elements.Has(inet.Element{Addr: a, Port: port})
	case inet.AddrRanges:
		return inRanges(s.Ranges, inet.Element{Addr: a})
	case inet.PortRanges:
		return inRanges(s.Ranges, inet.Element{Port: port})
	}
	return false
}

func inRanges(list []inet.Range, e inet.Element) bool {
	i, found := slices.BinarySearchFunc(list, e, func(r inet.Range, e inet.Element) int { return r.First.Compare(e) })
	return found || i > 0 && list[i-1].Contains(e)
}
