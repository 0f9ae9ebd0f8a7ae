// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

// anyEnds are all pods by name, of whatever kind, and every address.
func anyEnds(snap *cluster.Snapshot) []explain.End {
	ends := []explain.End{{Addr: netip.MustParseAddr("198.51.100.7")}, {Addr: netip.MustParseAddr("fe80::7")}, {}}
	for _, n := range gen.Nodes() {
		ends = append(ends, explain.End{Node: n, Addr: gen.NodeAddr(n, true)},
			explain.End{Node: n, Addr: gen.NodeAddr(n, false)})
	}
	for _, p := range snap.Pods {
		ends = append(ends, explain.End{Pod: p.Key})
		for _, a := range p.IPs {
			ends = append(ends, explain.End{Addr: a}, explain.End{Pod: p.Key, Addr: a})
		}
	}
	return ends
}

// The verdict alone is that of the explanation, also for addresses that two pods have, and
// so are errors.
func TestAllowedIsTheVerdictOfExplain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		one, other := explain.New(snap), explain.New(snap)
		port := rapid.SampledFrom([]uint16{53, 79, 80, 81, 443, 8080}).Draw(t, "port")
		for _, src := range anyEnds(snap) {
			for _, dst := range anyEnds(snap) {
				f := explain.Flow{Src: src, Dst: dst, Protocol: inet.TCP, Port: port}
				e, want := one.Explain(f)
				got, err := other.Allowed(f)
				if egress, ingress, _ := other.Sides(f); err == nil &&
					(egress != e.Egress.Allowed() || ingress != e.Ingress.Allowed()) {
					t.Fatalf("%s to %s tcp:%d: egress %t, ingress %t, Explain says %v", src, dst, port, egress, ingress, e)
				}
				if fmt.Sprint(want) != fmt.Sprint(err) || !errors.Is(err, errors.Unwrap(want)) || err == nil && got != e.Allowed {
					t.Fatalf("%s to %s tcp:%d: %t %v, Explain says %v %v\n%s", src, dst, port, got, err, e, want, gen.Describe(snap))
				}
			}
		}
	})
}
