// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"testing"
	"time"

	"github.com/podwall/podwall/internal/netpol/decide"
)

// An isolated pod without a route is a blocking problem, reported without any event in the kernel or the
// cluster.
func TestAPodThatNothingLeadsToWakesTheLoop(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		r := healthy(t, d, isolated())
		if r.Unsure[decide.UnsureUnreached] != 1 {
			t.Errorf("unsure of %v, want one pod that is unreached", r.Unsure)
		}
		woken(t, d)
		d.now = func() time.Time { return time.Now().Add(decide.Grace) }
		r = apply(t, d, isolated())
		if len(r.Problems) != 1 || !r.Problems[0].Blocking || r.Problems[0].Subject != "pods without an interface" {
			t.Errorf("problems: %+v, want one that blocks", r.Problems)
		}
	})
}
