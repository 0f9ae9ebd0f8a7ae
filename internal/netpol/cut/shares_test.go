// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Nobody gets less than an equal part of what it wants, and nothing is wasted.
func TestSharesAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, sum := map[string]int{}, 0
		for i := range rapid.IntRange(0, 6).Draw(t, "tenants") {
			n := rapid.IntRange(0, 50).Draw(t, "wants")
			want[fmt.Sprint(i)], sum = n, sum+n
		}
		limit, given := rapid.IntRange(0, 100).Draw(t, "limit"), 0
		for tenant, n := range FairShares(want, limit) {
			if given += n; n > want[tenant] || n < min(want[tenant], limit/len(want)) {
				t.Fatalf("%s gets %d of %v, of %d places", tenant, n, want, limit)
			}
		}
		if given != min(limit, sum) {
			t.Fatalf("%d places are given of %d, %d are wanted", given, limit, sum)
		}
	})
}

// Two scopes together are both, and neither is changed.
func TestScopesAreJoined(t *testing.T) {
	a, b := NewScope(), NewScope()
	a.Touched[addr("10.0.0.1")], a.Round = true, 2
	b.Left[addr("10.0.0.2")], b.Whole, b.Round = "shop", true, 3
	both := Scopes{{Tenant: "a"}: a, {}: b}.All()
	if !both.Whole || !both.Touched[addr("10.0.0.1")] || both.Left[addr("10.0.0.2")] != "shop" {
		t.Errorf("both are %+v", both)
	}
	if got := a.With(b); got.Round != 2 || a.Whole || len(b.Touched) > 0 {
		t.Errorf("joined %+v of %+v and %+v", got, a, b)
	}
	if got := (*Scope)(nil).With(b); got.Round != 3 || !got.Whole {
		t.Errorf("of nothing and one: %+v", got)
	}
}
