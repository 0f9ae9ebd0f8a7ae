// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestHeldPodsAreNamedAndCounted(t *testing.T) {
	o := enforcing()
	long := time.Now().Add(-time.Minute)
	o.SetHeld([]Held{
		{Pod: "a/new", Why: HeldConnections, Since: time.Now().Add(heldAfter / 2)},
		{Pod: "a/p", Why: HeldConnections, Since: long},
		{Pod: "b/p", Why: HeldPolicies, Since: long}, {Pod: "b/q", Why: HeldPolicies, Since: long},
		{Pod: "c/p", Why: HeldElsewhere, Since: long}, {Pod: "c/q", Why: HeldElsewhere, Since: long}, {Pod: "c/r", Why: HeldElsewhere, Since: long},
	})
	var text bytes.Buffer
	if err := o.Status().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a/p since ", "connections from before", "b/p since ", "share of the agent's time", "and 1 more"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the status does not say %q:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "a/new") {
		t.Errorf("a pod is named too early:\n%s", text.String())
	}
	families, err := o.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "podwall_pods_held" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if len(got) != 3 || got["connections"] != 1 || got["policies"] != 2 || got["elsewhere"] != 3 {
		t.Errorf("the metric says %v", got)
	}
}
