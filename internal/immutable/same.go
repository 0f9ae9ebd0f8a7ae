// SPDX-License-Identifier: Apache-2.0

package immutable

// Same reports whether two slices, which must never be modified, are the same memory. It may be
// false for slices with equal elements.
func Same[E any](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
