// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"slices"
)

// ranking lists the policies of a namespace in the order in which its budget admits them: the
// smallest first, so that one large policy does not exclude the others, and equal sizes by name.
// The admitted policies are a prefix of the list: each later policy is at least as large, so it has
// no room either. A change moves the end of the prefix by one or two policies, so it costs two
// searches and no sorting.
type ranking struct {
	list []ranked
	fit  int // how many of the list are admitted
	sum  int // their total size
}

type ranked struct {
	size int
	key  Key
}

func (a ranked) compare(b ranked) int {
	return cmp.Or(cmp.Compare(a.size, b.size), a.key.Compare(b.key))
}

// newRanking ranks a complete list of policies.
func newRanking(policies map[Key]written) ranking {
	r := ranking{list: make([]ranked, 0, len(policies))}
	for k, w := range policies {
		r.list = append(r.list, ranked{w.size, k})
	}
	slices.SortFunc(r.list, ranked.compare)
	r.settle()
	return r
}

func (r *ranking) insert(x ranked) {
	i, _ := slices.BinarySearchFunc(r.list, x, ranked.compare)
	r.list = slices.Insert(r.list, i, x)
	if i < r.fit {
		r.fit++
		r.sum += x.size
	}
}

func (r *ranking) remove(x ranked) {
	i, found := slices.BinarySearchFunc(r.list, x, ranked.compare)
	if !found {
		return
	}
	r.list = slices.Delete(r.list, i, i+1)
	if i < r.fit {
		r.fit--
		r.sum -= x.size
	}
}

// settle moves the end of the prefix to the end of the budget, and returns the policies in between.
func (r *ranking) settle() (moved []ranked) {
	from := r.fit
	for r.sum > MaxNamespaceEntries {
		r.fit--
		r.sum -= r.list[r.fit].size
	}
	for r.fit < len(r.list) && r.sum+r.list[r.fit].size <= MaxNamespaceEntries {
		r.sum += r.list[r.fit].size
		r.fit++
	}
	return r.list[min(from, r.fit):max(from, r.fit)]
}

// fits reports whether the budget has room for a policy of the list.
func (r *ranking) fits(x ranked) bool {
	return r.fit > 0 && x.compare(r.list[r.fit-1]) <= 0
}
