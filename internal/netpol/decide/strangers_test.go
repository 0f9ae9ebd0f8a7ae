// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"strings"
	"testing"
	"time"
)

func TestInterfacesWithoutAKnownPodAreReportedAfterAWhile(t *testing.T) {
	start := time.Unix(0, 0)
	d := New(Options{})
	if got := d.strange([]string{"veth1", "veth2"}, start); got != nil {
		t.Errorf("at once: %+v, want nothing", got)
	}
	if got := d.nextLook(Wiring{Now: start.Add(time.Second)}); got != Grace-time.Second {
		t.Errorf("the next look is after %v, want the end of the grace", got)
	}
	got := d.strange([]string{"veth2", "veth3"}, start.Add(Grace))
	if len(got) != 1 || got[0].Blocking || !strings.HasSuffix(got[0].Text, ": veth2") ||
		!strings.Contains(got[0].Cure, "--uplink-interfaces") {
		t.Errorf("after the grace: %+v, want one that names veth2 alone", got)
	}
	if got := d.strange(nil, start.Add(2*Grace)); got != nil || len(d.strangers) != 0 {
		t.Errorf("once they are gone: %+v, want nothing", got)
	}
}
