// SPDX-License-Identifier: Apache-2.0

package immutable

// Same reports whether two slices that nobody changes are the very same. They may
// be equal if they are not.
func Same[E any](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
