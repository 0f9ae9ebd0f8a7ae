// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"net/netip"
	"slices"
)

// mergePrefixes returns the shortest sorted list of disjoint prefixes that
// covers the same addresses.
func mergePrefixes(list []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		sorted = append(sorted, p.Masked())
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var merged []netip.Prefix
	for _, p := range sorted {
		if n := len(merged); n > 0 && merged[n-1].Overlaps(p) {
			continue // inside the previous one
		}
		merged = joinHalves(append(merged, p))
	}
	return merged
}

// joinHalves replaces the last two prefixes by their parent as long as they are its two halves.
func joinHalves(list []netip.Prefix) []netip.Prefix {
	for len(list) > 1 {
		a, b := list[len(list)-2], list[len(list)-1]
		if a.Bits() != b.Bits() || a.Bits() == 0 {
			break
		}
		parent := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
		if parent.Addr() != a.Addr() || !parent.Contains(b.Addr()) {
			break
		}
		list = append(list[:len(list)-2], parent)
	}
	return list
}
