// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

// A pod at the gate may start when the kernel has its verdicts, and not when a
// pass left its address out. Those who came before it do not wait for it.
func TestAPassThatHoldsAnAddressDoesNotReachIt(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	steps := []struct {
		revision uint64
		held     []netip.Addr
		want     uint64
	}{
		{5, nil, 5},
		{7, []netip.Addr{a}, 5},
		{9, []netip.Addr{a, b}, 5},
		{12, []netip.Addr{b}, 7},
		{12, []netip.Addr{b}, 7},
		{13, nil, 13},
		{13, []netip.Addr{a}, 13}, // with what is not newer
	}
	var w withheld
	for i, s := range steps {
		w.passed(cluster.Delta{Revision: s.revision, Source: fmt.Sprint(s.revision)}, s.held, true)
		if source := fmt.Sprint(s.want); w.reached != s.want || len(s.held) == 0 && w.source != source || len(s.held) > 0 && w.source == fmt.Sprint(s.revision) && s.revision != s.want {
			t.Errorf("pass %d: %d and %q are reached, want %d", i, w.reached, w.source, s.want)
		}
	}
}

// What a giant policy holds back of a revision comes with a later pass. A pod that
// this one holds is not reached by the first.
func TestAPassThatIsNotWholeReachesNothing(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	var w withheld
	d := cluster.Delta{Revision: 2, Source: "old"}
	w.passed(d, nil, true)
	d = cluster.Delta{Revision: 3, Source: "new"}
	w.passed(d, nil, false)
	if w.reached != 2 || w.source != "old" {
		t.Errorf("a part reaches %d and %q", w.reached, w.source)
	}
	w.passed(d, []netip.Addr{a}, true)
	if w.reached != 2 || w.source != "old" {
		t.Errorf("with a pod held %d and %q are reached", w.reached, w.source)
	}
	w.passed(d, nil, true)
	if w.reached != 3 || w.source != "new" {
		t.Errorf("in the end %d and %q are reached", w.reached, w.source)
	}
}
