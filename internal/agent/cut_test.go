// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"errors"
	"testing"

	"github.com/podwall/podwall/internal/agent"
)

// What a scan found is ended without a pass. If that fails a pass is made, since
// nobody knows what the kernel holds.
func TestDeniedConnectionsEndWithoutAPass(t *testing.T) {
	for name, failure := range map[string]error{"it works": nil, "it fails": errors.New("the kernel refuses")} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			r.failure = failure
			run(t, r, func(_ *agent.Loop, settle func()) {
				settle()
				before := len(r.programs)
				r.denied <- struct{}{}
				settle()
				if passes := len(r.programs) - before; r.cut != 1 || (passes > 0) != (failure != nil) {
					t.Errorf("%d cuts, %d passes", r.cut, passes)
				}
			})
		})
	}
}
