// SPDX-License-Identifier: Apache-2.0

package denied_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/oracle"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// viewOf is what a node enforces.
func viewOf(snap *cluster.Snapshot, node string) (*denied.View, *program.Program) {
	m := policy.Resolve(snap, node)
	p := compile.NewLayout(m.Layout, compile.Options{}).Program(m.Sets)
	return denied.NewView(m.Layout, p), p
}

// Every packet that a program denies has a record that names the policies that the oracle
// names, and a nearest rule of one of them that is as near as the oracle's.
func TestRecordsNameThePoliciesThatTheOracleNames(t *testing.T) {
	records, near := 0, 0
	check := func(t *rapid.T, v *denied.View, d program.Direction, f denied.Flow, pod cluster.Key, want oracle.Reason) {
		records++
		got, ok := v.Record(d, f, time.Unix(1_700_000_000, 0))
		if !ok || got.Pod != pod || got.Direction != d.String() || !slices.Equal(got.Policies, want.Isolating) {
			t.Fatalf("%s of %s: record %+v (%t), the oracle says %s", d, pod, got, ok, want)
		}
		if got.Nearest == nil {
			return
		}
		near++
		// Of a list in which nothing was understood no rule is compiled, so the oracle's may be
		// nearer.
		// It also prefers a port that matches and one wrong label to a broad peer.
		if want.Nearest == nil || got.Nearest.PeerMatches && got.Nearest.PortMatches ||
			got.Nearest.PeerMatches && !want.Nearest.PeerMatches && !want.Nearest.PortMatches {
			t.Fatalf("%s of %s: nearest %+v, the oracle says %s", d, pod, got.Nearest, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		port := rapid.SampledFrom([]uint16{53, 80, 443, 8080}).Draw(t, "port")
		for _, node := range gen.Nodes() {
			v, p := viewOf(snap, node)
			for _, dst := range snap.Pods {
				if dst.Node != node || !dst.Networked() || contested(snap, dst) {
					continue
				}
				for _, src := range snap.Pods {
					if !src.Networked() || contested(snap, src) || src.IPs[0].Is4() != dst.IPs[0].Is4() {
						continue
					}
					f := denied.Flow{Src: src.IPs[0], Dst: dst.IPs[0], Protocol: inet.TCP, Port: port}
					trace := program.Explain(p, program.Flow{Protocol: f.Protocol, Src: f.Src, Dst: f.Dst, DstPort: port})
					want := oracle.Judge(snap, oracle.Flow{Protocol: cluster.TCP, Port: port,
						Src: oracle.Endpoint{Pod: src.Key, Addr: f.Src}, Dst: oracle.Endpoint{Pod: dst.Key, Addr: f.Dst}})
					if trace.Ingress.Drops() {
						check(t, v, program.Ingress, f, dst.Key, want.Ingress)
					}
					if trace.Egress.Drops() {
						check(t, v, program.Egress, f, src.Key, want.Egress)
					}
				}
			}
		}
	})
	if records == 0 || near == 0 {
		t.Errorf("only %d records, %d with a nearest rule", records, near)
	}
}

func contested(snap *cluster.Snapshot, p *cluster.Pod) bool {
	return slices.ContainsFunc(snap.Pods, func(o *cluster.Pod) bool {
		return o != p && o.Networked() && slices.ContainsFunc(o.IPs, func(a netip.Addr) bool { return slices.Contains(p.IPs, a) })
	})
}

// A packet that met a program of before has no record.
func TestWhoIsNotIsolatedDeniesNothing(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	pod := &cluster.Pod{Key: cluster.Key{Namespace: "a", Name: "p"}, Node: "n", IPs: []netip.Addr{a}}
	v := denied.NewView(&policy.Layout{Workloads: []policy.Workload{{Pod: pod}}}, &program.Program{})
	for _, d := range []program.Direction{program.Ingress, program.Egress} {
		if r, ok := v.Record(d, denied.Flow{Src: a, Dst: a}, time.Time{}); ok {
			t.Errorf("%s: %+v", d, r)
		}
		if r, ok := v.Record(d, denied.Flow{Src: a.Next(), Dst: a.Next()}, time.Time{}); ok {
			t.Errorf("%s of no pod: %+v", d, r)
		}
	}
}

func TestARingKeepsTheNewest(t *testing.T) {
	ring := denied.NewRing(2)
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	add := func(port uint16, second int) {
		ring.Add(denied.Record{Flow: denied.Flow{Port: port}, Direction: "ingress", Count: 1, First: at(second), Last: at(second)})
	}
	add(1, 0)
	add(1, 30)  // the same client again
	add(2, 40)  // another
	add(1, 80)  // still the same
	add(1, 200) // after a silence
	if got := ring.Since(at(0)); len(got) != 2 || got[0].Port != 2 || got[1].Count != 1 || ring.Dropped() != 1 {
		t.Errorf("kept %+v, dropped %d", got, ring.Dropped())
	}
	add(2, 210)
	if got := ring.Since(at(205)); len(got) != 1 || got[0].Port != 2 {
		t.Errorf("since then %+v", got)
	}
	none := denied.NewRing(0)
	none.Add(denied.Record{})
	if got := none.Since(time.Time{}); len(got) != 0 || none.Dropped() != 1 {
		t.Errorf("a ring without room keeps %+v", got)
	}
}
