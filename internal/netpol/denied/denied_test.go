// SPDX-License-Identifier: Apache-2.0

package denied_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
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

var (
	ingress = denied.By{Direction: program.Ingress}
	egress  = denied.By{Direction: program.Egress}
)

// viewOf is what a node enforces.
func viewOf(snap *cluster.Snapshot, node string) (*denied.View, *program.Program) {
	m := policy.Resolve(snap, node)
	p := compile.NewLayout(m.Layout, compile.Options{}).Program(m.Sets)
	return denied.NewView(m.Layout, p), p
}

// recordOf is the record of one packet.
func recordOf(t rapid.TB, v *denied.View, by denied.By, f denied.Flow) denied.Record {
	list := records(v, by, f)
	if len(list) != 1 || list[0].NearestSkipped {
		t.Fatalf("%+v %+v: records %+v, want one with a nearest rule looked for", by, f, list)
	}
	return list[0]
}

func records(v *denied.View, by denied.By, f denied.Flow) []denied.Record {
	var g denied.Gatherer
	g.Add(v, by, f, time.Unix(1_700_000_000, 0))
	return g.Flush("n", denied.Names{Owners: func([]netip.Addr) map[netip.Addr]cluster.Owner { return nil }})
}

// Every packet that a program denies has a record that names the policies that the oracle
// names, and a nearest rule of one of them that is as near as the oracle's.
func TestRecordsNameThePoliciesThatTheOracleNames(t *testing.T) {
	count, near, audited := 0, 0, 0
	check := func(t *rapid.T, v *denied.View, d denied.By, f denied.Flow, pod cluster.Key, want oracle.Reason) {
		count++
		got := recordOf(t, v, d, f)
		if d.Audit {
			audited++
		}
		if *got.Subject().Pod != pod || got.Direction != d.Direction.String() ||
			(got.Verdict == denied.WouldDeny) != d.Audit || !slices.Equal(got.Policies, want.Isolating) {
			t.Fatalf("%v of %s: record %+v, the oracle says %s", d, pod, got, want)
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
			t.Fatalf("%v of %s: nearest %+v, the oracle says %s", d, pod, got.Nearest, want)
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
					flow := program.Flow{Protocol: f.Protocol, Src: f.Src, Dst: f.Dst, DstPort: port}
					asked := oracle.Flow{Protocol: cluster.TCP, Port: port, Src: oracle.Endpoint{Pod: src.Key, Addr: f.Src},
						Dst: oracle.Endpoint{Pod: dst.Key, Addr: f.Dst}}
					trace, now, audit := program.Explain(p, flow), oracle.Judge(snap, asked), oracle.Audit(snap, asked)
					if trace.Ingress.Drops() {
						check(t, v, ingress, f, dst.Key, now.Ingress)
					}
					if trace.Egress.Drops() {
						check(t, v, egress, f, src.Key, now.Egress)
					}
					would := program.WouldDrop(p, program.Ingress, flow)
					if would != oracle.WouldDeny(now.Ingress, audit.Ingress) {
						t.Fatalf("%s to %s: ingress would drop: %t, the oracle says %s", src.Key, dst.Key, would, audit)
					}
					if would {
						check(t, v, denied.By{Direction: program.Ingress, Audit: true}, f, dst.Key, audit.Ingress)
					}
					if src.Node == node && program.WouldDrop(p, program.Egress, flow) {
						check(t, v, denied.By{Direction: program.Egress, Audit: true}, f, src.Key, audit.Egress)
					}
				}
			}
		}
	})
	if count == audited || near == 0 || audited == 0 {
		t.Errorf("only %d records, %d of audits, %d with a nearest rule", count, audited, near)
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
	for _, d := range []denied.By{ingress, egress, {Direction: program.Ingress, Audit: true}} {
		for _, of := range []netip.Addr{a, a.Next()} {
			if r := records(v, d, denied.Flow{Src: of, Dst: of}); len(r) != 0 {
				t.Errorf("%v of %s: %+v", d, of, r)
			}
		}
	}
}

// isolated is a pod that one policy isolates for ingress, in a view whose program has as many rules
// for it.
func isolated(rules int) (*denied.View, netip.Addr) {
	list := make([]program.Rule, rules)
	for i := range list {
		list[i] = program.Rule{Protocol: inet.UDP}
	}
	return isolatedBy(list...)
}

// isolatedBy is the same with these rules, which are those of its policy unless they say another.
func isolatedBy(rules ...program.Rule) (*denied.View, netip.Addr) {
	a := netip.MustParseAddr("10.0.0.1")
	key := cluster.Key{Namespace: "a", Name: "p"}
	pod := &cluster.Pod{Key: key, Node: "n", IPs: []netip.Addr{a}}
	by := policy.Isolation{Isolated: true, Policies: []*policy.Resolved{{Policy: &cluster.Policy{Key: key}}}}
	for i := range rules {
		if rules[i].Origins == nil {
			rules[i].Origins = []program.Origin{{Policy: key.String(), Index: i}}
		}
	}
	chain := &program.Chain{Name: "c", Direction: program.Ingress, Family: inet.IPv4, Rules: rules}
	return denied.NewView(&policy.Layout{Workloads: []policy.Workload{{Pod: pod, Ingress: by}}},
		&program.Program{Pods: []program.Pod{{Addr: a, Name: key.String(), Ingress: "c"}},
			Chains: []*program.Chain{chain}}), a
}

// However many packets come, the work between two flushes is bounded, and nothing is silent.
func TestGatheringIsBounded(t *testing.T) {
	v, a := isolated(3000)
	var g denied.Gatherer
	if !g.Empty() {
		t.Error("a new one is not empty")
	}
	const flows = 5000
	at := time.Unix(1_700_000_000, 0)
	for range 2 {
		for port := range uint16(flows) {
			g.Add(v, ingress, denied.Flow{Src: a.Next(), Dst: a, Protocol: inet.TCP, Port: port}, at)
			at = at.Add(time.Millisecond)
		}
	}
	list := g.Flush("n", denied.Names{Owners: func(unknown []netip.Addr) map[netip.Addr]cluster.Owner {
		return map[netip.Addr]cluster.Owner{unknown[0]: {Pod: &cluster.Key{Namespace: "b", Name: "far"}}}
	}})
	var packets uint64
	looked := 0
	for _, r := range list {
		packets += r.Count
		if !r.NearestSkipped {
			looked++
		}
		if r.Source.Pod == nil || r.Source.Pod.Name != "far" || r.Node != "n" || !r.Last.After(r.First) {
			t.Fatalf("record %+v", r)
		}
	}
	if packets+g.Skipped() != 2*flows || g.Skipped() == 0 || looked == 0 || looked > 100_000/3000 {
		t.Errorf("%d packets recorded, %d skipped, of %d; rules looked at for %d", packets, g.Skipped(), 2*flows, looked)
	}
	if !g.Empty() || len(g.Flush("n", denied.Names{})) != 0 {
		t.Error("a flush left something")
	}
}

// What a record says is of the view in which the last of its packets was denied.
func TestARecordIsOfItsView(t *testing.T) {
	v, a := isolated(1)
	open := denied.NewView(&policy.Layout{}, &program.Program{})
	f := denied.Flow{Src: a.Next(), Dst: a, Protocol: inet.TCP, Port: 80}
	none := func([]netip.Addr) map[netip.Addr]cluster.Owner { return nil }
	var g denied.Gatherer
	g.Add(open, ingress, f, time.Time{})
	if list := g.Flush("n", denied.Names{Owners: none}); len(list) != 0 {
		t.Errorf("nobody was isolated: %+v", list)
	}
	g.Add(v, ingress, f, time.Time{})
	list := g.Flush("n", denied.Names{Owners: none})
	if len(list) != 1 || list[0].Nearest == nil || !list[0].Nearest.PeerMatches || list[0].Nearest.PortMatches ||
		list[0].Source.Pod != nil || list[0].Destination.Pod.Name != "p" {
		t.Errorf("records %+v", list)
	}
	g.Add(open, ingress, f, time.Time{})
	g.Add(v, ingress, f, time.Time{})
	if list := g.Flush("n", denied.Names{Owners: none}); len(list) != 1 || list[0].Count != 2 {
		t.Errorf("after a change: records %+v", list)
	}
}

// The rule of which most is met is named, the peer before the port, and none of a policy that does not
// isolate the pod: pods whose policies say the same share a chain.
func TestTheNearestRuleIsOfThePodsPolicies(t *testing.T) {
	v, a := isolatedBy(
		program.Rule{Protocol: inet.UDP, Block: program.Block{CIDR: netip.MustParsePrefix("192.0.2.0/24")}},
		program.Rule{Protocol: inet.TCP, Block: program.Block{CIDR: netip.MustParsePrefix("192.0.2.0/24")}},
		program.Rule{Protocol: inet.UDP, Origins: []program.Origin{{Policy: "b/other", Index: 2}}},
		program.Rule{Protocol: inet.UDP},
		program.Rule{Protocol: inet.SCTP},
	)
	r := recordOf(t, v, ingress, denied.Flow{Src: a.Next(), Dst: a, Protocol: inet.TCP, Port: 80})
	if want := (denied.Nearest{Policy: "a/p", Rule: 3, PeerMatches: true}); r.Nearest == nil || *r.Nearest != want {
		t.Errorf("nearest %+v, want %+v", r.Nearest, want)
	}
}

// stream makes records of one flow each, told apart by port.
func stream(t *testing.T) func(port uint16, second int) denied.Record {
	v, a := isolated(0)
	return func(port uint16, second int) denied.Record {
		r := recordOf(t, v, ingress, denied.Flow{Src: a.Next(), Dst: a, Protocol: inet.TCP, Port: port})
		r.First, r.Last = at(second), at(second)
		return r
	}
}

func at(second int) time.Time { return time.Unix(int64(second), 0) }

// dropped says how many records a ring dropped, and the second of the latest packet of them.
func dropped(r *denied.Ring) string {
	n, last := r.Dropped()
	return fmt.Sprintf("%d at %d", n, last.Unix())
}

func TestARingKeepsTheNewest(t *testing.T) {
	ring, of := denied.NewRing(2), stream(t)
	add := func(port uint16, second int) { ring.Add(of(port, second)) }
	add(1, 0)
	add(1, 30)  // the same client again
	add(2, 40)  // another
	add(1, 80)  // still the same
	add(1, 200) // after a silence
	if got := ring.Since(at(0)); len(got) != 2 || got[0].Port != 2 || got[1].Count != 1 || dropped(ring) != "1 at 80" {
		t.Errorf("kept %+v, dropped %s", got, dropped(ring))
	}
	add(2, 210)
	if got := ring.Since(at(205)); len(got) != 1 || got[0].Port != 2 || dropped(ring) != "2 at 80" {
		t.Errorf("since then %+v, dropped %s", got, dropped(ring))
	}
	none := denied.NewRing(0)
	none.Add(of(1, 7))
	if got := none.Since(time.Time{}); len(got) != 0 || dropped(none) != "1 at 7" {
		t.Errorf("a ring without room keeps %+v", got)
	}
}

// Who follows sees a flow when it begins, and its count every ten seconds while it goes on.
func TestAFlowIsShownAgain(t *testing.T) {
	ring, of := denied.NewRing(2), stream(t)
	shown := map[int]uint64{}
	for second := range 25 {
		if r, show := ring.Add(of(1, second)); show {
			shown[second] = r.Count
		}
	}
	if want := map[int]uint64{0: 1, 10: 11, 20: 21}; !maps.Equal(shown, want) {
		t.Errorf("shown %v, want %v", shown, want)
	}
}

// named are Services of a test.
type named struct{ asked int }

var webService = netip.MustParseAddrPort("10.96.0.1:80")

func (named) Named(p inet.Protocol, at netip.AddrPort) string {
	if p == inet.TCP && at == webService {
		return "shop/web:80"
	}
	return ""
}

func (n *named) Behind(to []denied.Destination) map[denied.Destination][]string {
	n.asked++
	return map[denied.Destination][]string{to[0]: {"shop/api:443", "shop/web:80"}}
}

// Where the client sent a packet is part of the record, and of what is one flow. The Service is named by who serves
// it; if it is not known where the packet was sent, those are named that lead to its destination.
func TestRecordsNameTheServiceThatWasCalled(t *testing.T) {
	v, a := isolated(1)
	f := denied.Flow{Src: a.Next(), Dst: a, Protocol: inet.TCP, Port: 8080}
	other, known := netip.MustParseAddrPort("[fd00::1]:443"), &named{}
	names := denied.Names{Owners: func([]netip.Addr) map[netip.Addr]cluster.Owner { return nil }, Services: known}
	var g denied.Gatherer
	for _, at := range []netip.AddrPort{webService, webService, other, {}, netip.AddrPortFrom(a, 8080)} {
		g.Add(v, ingress, f.SentTo(at), time.Unix(1_700_000_000, 0))
	}
	var got []string
	for _, r := range g.Flush("n", names) {
		got = append(got, fmt.Sprint(r.By(), ", ", r.Count))
		if by := r.By(); by != "" && !strings.Contains(r.Sentence(), " "+by+": ") {
			t.Errorf("%q does not say %s", r.Sentence(), by)
		}
	}
	want := []string{"by Service shop/web:80 (10.96.0.1:80), 2", "by [fd00::1]:443, 1",
		"behind Service shop/api:443, shop/web:80, 1", ", 1"}
	if !slices.Equal(got, want) || known.asked != 1 {
		t.Errorf("records %q, want %q; asked %d times", got, want, known.asked)
	}
	if called := (denied.Flow{Dst: a, Protocol: 1}).SentTo(netip.AddrPortFrom(a, 8)).Called; called.IsValid() {
		t.Errorf("a packet without ports was sent to %s by a Service", called)
	}
}
