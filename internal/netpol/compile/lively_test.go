// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"testing"

	"pgregory.net/rapid"
)

// maxRounds is how often a property is run before it counts as too dull. One
// round of a hundred clusters is too dull now and then, so ten in a row only
// are when the generator is at fault.
const maxRounds = 10

// checkUntil runs the property until enough was compared to show something.
// The counts of a round are added to those of the rounds before. It reports
// whether it was enough.
func checkUntil(t *testing.T, enough func() bool, property func(*rapid.T)) bool {
	t.Helper()
	for range maxRounds {
		rapid.Check(t, property)
		if enough() {
			return true
		}
	}
	return false
}
