// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// In a direction in which a policy isolates a pod nothing is audited, and what is audited is by policies in
// audit mode alone.
func TestAPodIsIsolatedOrAudited(t *testing.T) {
	audited := 0
	gen.CheckUntil(t, func() bool { return audited >= 20 }, func(t *rapid.T) { audited += isolatedOrAudited(t) })
}

// isolatedOrAudited checks a random cluster and returns how many directions of pods are audited.
func isolatedOrAudited(t *rapid.T) (audited int) {
	for _, w := range policy.Resolve(gen.Snapshot(t), "one").Layout.Workloads {
		for _, pair := range [][2]policy.Isolation{{w.Ingress, w.AuditIngress}, {w.Egress, w.AuditEgress}} {
			if pair[0].Isolated && pair[1].Isolated {
				t.Fatalf("%s is isolated and audited in one direction", w.Pod.Key)
			}
			for audit, isolation := range pair {
				if isolation.Isolated != (len(isolation.Policies) > 0) {
					t.Fatalf("%s: %+v", w.Pod.Key, isolation)
				}
				for _, p := range isolation.Policies {
					if p.Policy.Audit != (audit == 1) {
						t.Fatalf("%s: policy %s is at the wrong place", w.Pod.Key, p.Policy.Key)
					}
				}
			}
			if pair[1].Isolated {
				audited++
			}
		}
	}
	return audited
}
