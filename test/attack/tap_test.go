// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// Pods on taps gain no more than those on pairs.
func TestAttackersOnTaps(t *testing.T) {
	for _, datapath := range []string{"nat", "filter"} {
		t.Run(datapath, func(t *testing.T) {
			w := &world{stage.New(t, lab.Tap, stage.Setup{Args: []string{"--datapath=" + datapath}})}
			t.Run("forged sources", func(t *testing.T) { forgedSourceGainsNothing(t, w) })
			t.Run("a pod that is not known", func(t *testing.T) { newcomerIsClosed(t, w) })
		})
	}
}
