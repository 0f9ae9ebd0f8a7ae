// SPDX-License-Identifier: Apache-2.0

package inet

// EachChange calls removed with each element that is only in before, and added with each that is
// only in after. Both lists are sorted, and have no element twice.
func EachChange[E interface{ Compare(E) int }](before, after []E, removed, added func(E)) {
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = before[0].Compare(after[0])
		}
		if order < 0 {
			removed(before[0])
		}
		if order > 0 {
			added(after[0])
		}
		if order <= 0 {
			before = before[1:]
		}
		if order >= 0 {
			after = after[1:]
		}
	}
}
