// SPDX-License-Identifier: Apache-2.0

// Package soak says how long tests may take: as long as in every run, or as long
// as in `make soak`. It is asked by tests of any package, and knows none.
package soak

import "os"

// Variable makes runs long when it is 1.
const Variable = "PODWALL_SOAK"

// Long reports whether the long versions were asked for.
func Long() bool { return os.Getenv(Variable) == "1" }

// Times is how often something is done: in the normal run, and in a long one.
func Times(normal, long int) int {
	if Long() {
		return long
	}
	return normal
}
