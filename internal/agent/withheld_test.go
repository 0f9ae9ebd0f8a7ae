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
		w.passed(cluster.Delta{Revision: s.revision, Source: fmt.Sprint(s.revision)}, s.held)
		if source := fmt.Sprint(s.want); w.reached != s.want || len(s.held) == 0 && w.source != source || len(s.held) > 0 && w.source == fmt.Sprint(s.revision) && s.revision != s.want {
			t.Errorf("pass %d: %d and %q are reached, want %d", i, w.reached, w.source, s.want)
		}
	}
}
