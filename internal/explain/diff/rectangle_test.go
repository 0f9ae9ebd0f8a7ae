// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"testing"

	"pgregory.net/rapid"
)

// Rectangles cover each pair of a relation once, and no pair that is not in it, but for an
// end with itself.
func TestRectanglesAreTheRelation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "ends")
		rows := newBits(n)
		for i := range n {
			for j := range n {
				if i != j && rapid.IntRange(0, 2).Draw(t, "in") > 0 {
					rows[i].set(j)
				}
			}
		}
		got := newBits(n)
		for _, r := range rectangles(rows, anyTwo) {
			for _, i := range r.one {
				for _, j := range r.other {
					if i == j {
						continue
					}
					if !rows[i].has(j) || got[i].has(j) {
						t.Fatalf("%d, %d: not in the relation, or twice: %v", i, j, rectangles(rows, anyTwo))
					}
					got[i].set(j)
				}
			}
		}
		for i := range n {
			if !got[i].sameBut(rows[i], i, i) {
				t.Fatalf("row %d is %v, want %v", i, got[i].list(), rows[i].list())
			}
		}
	})
}

func anyTwo(int, int) bool { return true }

// All pairs of some ends are one rectangle, though no end is in a relation with itself.
func TestEachWithEachIsOneRectangle(t *testing.T) {
	rows := newBits(70)
	for i := range rows {
		for j := range rows {
			if i != j {
				rows[i].set(j)
			}
		}
	}
	if got := rectangles(rows, anyTwo); len(got) != 1 || len(got[0].one) != 70 || len(got[0].other) != 70 {
		t.Errorf("%d rectangles: %v", len(got), got)
	}
}
