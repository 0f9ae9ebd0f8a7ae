// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/observe"
)

// What the datapath counts and what the metric can say are two lists of two
// packages that do not know each other.
func TestWhatIsUnsureIsAMetric(t *testing.T) {
	if have, want := observe.Unsures(), decide.Unsures(); !slices.Equal(have, want) {
		t.Errorf("the metric can say %v, want %v", have, want)
	}
}
