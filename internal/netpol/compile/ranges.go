// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// blockRanges returns the addresses of a block minus its except ranges. The cost is n log n for n
// except ranges.
func blockRanges(b *cluster.IPBlock) []inet.Range {
	left := inet.AddrRange(b.CIDR)
	var ranges []inet.Range
	for _, hole := range mergePrefixes(b.Except) {
		h := inet.AddrRange(hole)
		if !left.Contains(h.First) && !h.Contains(left.First) {
			continue // outside, or of the other family
		}
		if left.First.Compare(h.First) < 0 {
			ranges = append(ranges, inet.Range{First: left.First, Last: inet.Element{Addr: h.First.Addr.Prev()}})
		}
		if h.Last.Compare(left.Last) >= 0 {
			return ranges
		}
		left.First = inet.Element{Addr: h.Last.Addr.Next()}
	}
	return append(ranges, left)
}

// mergeRanges sorts ranges and joins those that overlap or are adjacent. next returns the member
// after another.
func mergeRanges(list []inet.Range, next func(inet.Element) inet.Element) []inet.Range {
	slices.SortFunc(list, inet.Range.Compare)
	merged := list[:0]
	for _, r := range list {
		if n := len(merged); n > 0 {
			last := &merged[n-1].Last
			if r.First.Compare(*last) <= 0 || r.First == next(*last) {
				if last.Compare(r.Last) < 0 {
					*last = r.Last
				}
				continue
			}
		}
		merged = append(merged, r)
	}
	return slices.Clip(merged)
}

// nextAddr returns the address after another one; none after the last one.
func nextAddr(e inet.Element) inet.Element { return inet.Element{Addr: e.Addr.Next()} }

// nextPort returns the port after another one; none, which is 0, after the last one.
func nextPort(e inet.Element) inet.Element { return inet.Element{Port: e.Port + 1} }
