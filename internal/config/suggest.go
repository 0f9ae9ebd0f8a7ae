// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/spelling"
)

// closest returns the known name that a mistyped one was probably meant to be,
// or "" when none is near. Of equally near names the first one wins, so the
// list should be sorted.
func closest(name string, known []string) string {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	best, limit := "", 1+len(name)/4
	for _, k := range known {
		if len(k) == 1 {
			continue
		}
		if d := spelling.Distance(name, k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// Nearest returns at most so many of the known names, those that are most like a
// wrong one first: the same but for capitals, then the same but for a domain,
// then by the letters to change. The order of the list decides among equals.
func Nearest(name string, known []string, most int) []string {
	rank := func(k string) int {
		a, b := strings.ToLower(name), strings.ToLower(k)
		short, _, _ := strings.Cut(a, ".")
		shortKnown, _, _ := strings.Cut(b, ".")
		switch {
		case a == b:
			return -2
		case short == shortKnown:
			return -1
		}
		return spelling.Distance(a, b)
	}
	type ranked struct {
		name string
		rank int
	}
	list := make([]ranked, len(known))
	for i, k := range known {
		list[i] = ranked{k, rank(k)}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	var names []string
	for _, r := range list[:min(most, len(list))] {
		names = append(names, r.name)
	}
	return names
}
