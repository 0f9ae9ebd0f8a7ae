// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/netpol/program"
)

// A pod that was believed stays for the grace when its route goes for a moment; one
// that never was, or is another by now, does not.
func TestAMomentWithoutARouteLeavesNobodyOut(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	p := &program.Program{Pods: []program.Pod{{Addr: a, Name: "shop/web", ID: "1"}}}
	trusts, now := trusted{}, time.Unix(1000, 0)
	since := missing{a: {name: "shop/web", since: now}}
	left := func(at time.Time) bool {
		strays := map[netip.Addr]bool{a: true}
		trusts.update(p, strays, since, at)
		return strays[a]
	}
	if !left(now) {
		t.Error("a pod that was never believed stays")
	}
	trusts.update(p, nil, since, now)
	if left(now.Add(Grace - 1)) {
		t.Error("a pod is left out within the grace")
	}
	other := &program.Program{Pods: []program.Pod{{Addr: a, Name: "shop/web", ID: "2"}}}
	strays := map[netip.Addr]bool{a: true}
	trusted{a: {"shop/web", "1"}}.update(other, strays, since, now)
	if !strays[a] {
		t.Error("another pod is believed because of the one before")
	}
	if !left(now.Add(Grace)) || !left(now) {
		t.Error("the pod stays for ever")
	}
}
