// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"cmp"
	"maps"
	"slices"
)

// FairShares divides limit places among tenants. A tenant gets no more than it wants, and one that
// wants at most an equal share gets all that it wants.
func FairShares(want map[string]int, limit int) map[string]int {
	tenants := slices.SortedFunc(maps.Keys(want), func(a, b string) int {
		return cmp.Or(cmp.Compare(want[a], want[b]), cmp.Compare(a, b))
	})
	shares := make(map[string]int, len(want))
	for i, tenant := range tenants {
		shares[tenant] = min(want[tenant], limit/(len(tenants)-i))
		limit -= shares[tenant]
	}
	return shares
}
