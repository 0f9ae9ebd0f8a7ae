// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
)

// numbered are connections of a tenant, distinguished by their chain.
func numbered(tenant string, from, n int) (list []cut.Cut) {
	for i := range n {
		list = append(list, cut.Cut{Tenant: tenant, Entry: inet.Connection{Zone: uint16(from + i)}})
	}
	return list
}

func of(tenant string, list []cut.Cut) (numbers []int) {
	for _, c := range list {
		if c.Tenant == tenant {
			numbers = append(numbers, int(c.Entry.Zone))
		}
	}
	return numbers
}

func TestNobodysConnectionsWaitBehindAnothers(t *testing.T) {
	b := backlog{limit: 100}
	b.add(numbered("a", 0, 90))
	b.add(numbered("b", 0, 3))
	got := b.take(10)
	if !slices.Equal(of("b", got), []int{0, 1, 2}) || !slices.Equal(of("a", got), []int{0, 1, 2, 3, 4, 5, 6}) {
		t.Errorf("taken: %v of a, %v of b", of("a", got), of("b", got))
	}
	b.add(numbered("b", 3, 3))
	b.add(numbered("a", 90, 100))
	if n := len(b.queues["a"]) + len(b.queues["b"]); n != 100 {
		t.Errorf("%d wait", n)
	}
	if got := b.take(5); !slices.Equal(of("b", got), []int{3, 4}) || !slices.Equal(of("a", got), []int{7, 8, 9}) {
		t.Errorf("taken: %v of a, %v of b", of("a", got), of("b", got))
	}
}

func TestABacklogIsFair(t *testing.T) {
	tenants := []string{"a", "b", "c", "d"}
	rapid.Check(t, func(t *rapid.T) {
		b, added, taken := backlog{limit: 20}, map[string]int{}, map[string]int{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			before := b.lengths()
			if rapid.Bool().Draw(t, "add") {
				tenant, n := rapid.SampledFrom(tenants).Draw(t, "tenant"), rapid.IntRange(0, 30).Draw(t, "n")
				b.add(numbered(tenant, added[tenant], n))
				added[tenant] += n
				before[tenant] += n
				for of, had := range before {
					if part := b.limit / len(before); b.lengths()[of] < min(had, part) {
						t.Fatalf("%s had %d of %v and has %v left", of, had, before, b.lengths())
					}
				}
				continue
			}
			n := rapid.IntRange(0, 30).Draw(t, "n")
			list, waited := b.take(n), 0
			for tenant, had := range before {
				numbers := of(tenant, list)
				waited += had
				if len(before) > 0 && len(numbers) < min(had, n/len(before)) {
					t.Fatalf("%d of %s were taken of %v", len(numbers), tenant, before)
				}
				if len(numbers) > 0 && (!slices.IsSorted(numbers) || numbers[0] < taken[tenant]) {
					t.Fatalf("taken of %s: %v after %d", tenant, numbers, taken[tenant])
				}
				if len(numbers) > 0 {
					taken[tenant] = numbers[len(numbers)-1] + 1
				}
			}
			if len(list) != min(n, waited) {
				t.Fatalf("%d of %d were taken, %d were asked for", len(list), waited, n)
			}
		}
	})
}
