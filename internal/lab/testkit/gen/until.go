// SPDX-License-Identifier: Apache-2.0

package gen

import (
	"testing"

	"pgregory.net/rapid"
)

// CheckUntil checks a property of random inputs, in rounds of rapid.Check, until enough reports that the
// property was tried: one round may have few inputs that it is about, by chance. After ten rounds the test
// fails, since there are none.
func CheckUntil(t *testing.T, enough func() bool, property func(*rapid.T)) {
	t.Helper()
	for range 10 {
		if rapid.Check(t, property); enough() || t.Failed() {
			return
		}
	}
	t.Error("too few of the random inputs are what the test is about")
}
