// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"flag"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/baseline"
	"github.com/podwall/podwall/internal/lab/testkit/scale"
)

var _ = flag.Bool("update", false, "write the baselines anew")

// What a change allocates, and what a pod takes, must not grow. Rewrite with:
// go test ./internal/netpol/policy -run Costs -update
func TestCostsOfTheIndexDoNotGrow(t *testing.T) {
	w := newBig(scale.Seed())
	elsewhere := w.extra(false)
	allocations := func(change func(i int)) baseline.Cost {
		i := 0
		return baseline.Cost{Count: testing.AllocsPerRun(50, func() {
			change(i)
			w.pass()
			i++
		}), Margin: 0.2} // the race detector allocates too
	}
	costs := map[string]baseline.Cost{
		"allocations/pod-relabelled":   allocations(func(i int) { w.relabel(w.remote(0), i%2) }),
		"allocations/policy-elsewhere": allocations(func(i int) { w.toggle(elsewhere, i) }),
		"allocations/namespace-with-a-label-that-nobody-asks-for": allocations(func(i int) {
			w.store.Update(func(tx *cluster.Tx) {
				tx.SetNamespace(&cluster.Namespace{Name: scale.NamespaceName(1),
					Labels: cluster.NewLabels(map[string]string{"i": string(rune('a' + i%26))})})
			})
		}),
		"sets": {Count: float64(len(w.pass().Sets))},
	}
	costs["heap-bytes/pod"] = baseline.Cost{Count: heapPerPod(20_000), Margin: 0.1}
	baseline.Check(t, "costs.txt", costs)
}
