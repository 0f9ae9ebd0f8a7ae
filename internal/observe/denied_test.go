// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A tenant with many policies does not fill the memory; what has no series of its own is counted all
// the same.
func TestCountersByPolicyAreBounded(t *testing.T) {
	o := New(NewRegistry(), Info{})
	for i := range 3000 {
		o.AddDeniedBy("a", fmt.Sprint(i), "ingress", "denied", 2)
	}
	o.AddDeniedBy("a", "7", "ingress", "denied", 1)
	counters := o.metrics.denied.byPolicy
	if n := testutil.CollectAndCount(counters); n > maxDeniedSeries+2 {
		t.Errorf("%d series", n)
	}
	if n := testutil.ToFloat64(counters.WithLabelValues("a", "7", "ingress", "denied")); n != 3 {
		t.Errorf("policy 7 has %v packets, want 3", n)
	}
	if n := testutil.ToFloat64(counters.WithLabelValues("", "", "ingress", "denied")); n != 2000 {
		t.Errorf("the others have %v packets, want 2000", n)
	}
}
