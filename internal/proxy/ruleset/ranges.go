// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// ranges returns the ranges of prefixes: sorted, and neither overlapping nor adjacent, as an interval set
// needs them.
func ranges(list []netip.Prefix) []inet.Range {
	var sorted []inet.Range
	for _, p := range list {
		sorted = append(sorted, inet.AddrRange(p))
	}
	slices.SortFunc(sorted, inet.Range.Compare)
	var merged []inet.Range
	for _, r := range sorted {
		if n := len(merged); n > 0 && touches(merged[n-1], r) {
			if last := &merged[n-1].Last; last.Compare(r.Last) < 0 {
				*last = r.Last
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// touches reports whether the second range begins in the first one, or right behind it.
func touches(a, b inet.Range) bool { return a.Contains(b.First) || a.Last.Addr.Next() == b.First.Addr }
