// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"math/bits"
	"slices"
)

// bitset is a set of ends, by their positions.
type bitset []uint64

func newBits(n int) []bitset {
	list := make([]bitset, n)
	for i := range list {
		list[i] = make(bitset, (n+63)/64)
	}
	return list
}

func (b bitset) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitset) has(i int) bool { return b[i/64]>>(i%64)&1 == 1 }

func (b bitset) list() (l []int) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			l = append(l, i*64+bits.TrailingZeros64(w))
		}
	}
	return l
}

// sameBut reports whether two sets are equal, apart from two members.
func (b bitset) sameBut(o bitset, x, y int) bool {
	for i := range b {
		differ := b[i] ^ o[i]
		for _, m := range [2]int{x, y} {
			if m/64 == i {
				differ &^= 1 << (m % 64)
			}
		}
		if differ != 0 {
			return false
		}
	}
	return true
}

// rectangle are ends of one direction, all of which are in the relation with all ends of
// the other direction but themselves.
type rectangle struct{ one, other []int }

// rectangles splits a relation, given by its rows, so that ends with the same row are
// together. No end is in a relation with itself, so that its own place in its row counts as
// either; for the first of a group that place is what the rows of the others have there.
// Ends that are not alike are kept apart.
func rectangles(rows []bitset, alike func(i, j int) bool) []rectangle {
	type group struct {
		members  []int
		hasFirst bool // the rows of the others have the first member
	}
	var groups []*group
next:
	for i, row := range rows {
		if !slices.ContainsFunc(row, func(w uint64) bool { return w != 0 }) {
			continue
		}
		for _, g := range groups {
			first := g.members[0]
			hasFirst := row.has(first)
			if alike(i, first) && (len(g.members) == 1 || hasFirst == g.hasFirst) && row.sameBut(rows[first], i,
				first) {
				g.members, g.hasFirst = append(g.members, i), hasFirst
				continue next
			}
		}
		groups = append(groups, &group{members: []int{i}})
	}
	list := make([]rectangle, len(groups))
	for i, g := range groups {
		list[i] = rectangle{one: g.members, other: rows[g.members[0]].list()}
		if g.hasFirst {
			list[i].other = append(list[i].other, g.members[0])
			slices.Sort(list[i].other)
		}
	}
	return list
}
