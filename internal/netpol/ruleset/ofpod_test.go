// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The part of a pod has all chains and sets that it names, as they are in the table, and
// no entry of another pod in its maps; each of its chains is reached.
func TestThePartOfAPodIsWhole(t *testing.T) {
	chains := 0
	rapid.Check(t, func(t *rapid.T) {
		p := compile.Program(policy.Resolve(gen.Snapshot(t), "one"), compile.Options{})
		table := Render(p, program.Node{})
		for _, pod := range p.Pods {
			part := OfPod(table, []netip.Addr{pod.Addr})
			chains += len(part.Table.Chains)
			if (len(part.Table.Chains) > 0) != (pod.Ingress+pod.Egress+pod.AuditIngress+pod.AuditEgress != "") {
				t.Fatalf("%s: %s\n%s", pod.Name, part.Table, table)
			}
			names := part.Table.String()
			for _, c := range part.Table.Chains {
				if table.Chain(c.Name) != c || strings.Count(names, c.Name) < 2 {
					t.Fatalf("chain %s is another one, or is not reached:\n%s", c.Name, names)
				}
				for _, r := range c.Rules {
					for _, s := range r.Statements {
						if l, ok := s.(nft.Lookup); ok && part.Table.Set(l.Set) == nil {
							t.Fatalf("set %s is missing:\n%s", l.Set, names)
						}
						if v, ok := s.(nft.Verdict); ok && v.Chain != "" && part.Table.Chain(v.Chain) == nil {
							t.Fatalf("chain %s is missing:\n%s", v.Chain, names)
						}
					}
				}
			}
			for _, s := range part.Table.Sets {
				for _, e := range s.Entries {
					if e.Verdict.Chain != "" && part.Table.Chain(e.Verdict.Chain) == nil {
						t.Fatalf("chain %s of map %s is missing:\n%s", e.Verdict.Chain, s.Name, names)
					}
				}
				if strings.HasPrefix(s.Name, "pod-") && (len(s.Entries) != 1 || s.Entries[0].Key.Addr != pod.Addr) {
					t.Fatalf("map %s has entries of others:\n%s", s.Name, names)
				}
			}
		}
	})
	if chains < 100 {
		t.Errorf("%d chains: the clusters are too dull", chains)
	}
}

// A chain with many ports leads through a map to a chain for each port, and these to the
// rest.
func TestThePartOfAPodWithManyPorts(t *testing.T) {
	part := OfPod(Render(sample(), program.Node{}), []netip.Addr{netip.MustParseAddr("10.244.1.7")})
	if len(part.Table.Chains) != 22 || part.Table.Set("ports-ingress4-many") == nil || part.Table.Set("pods4-web") == nil ||
		part.Table.Chain("ingress4-many-tcp-8019") == nil || part.Table.Chain("ingress4-many-rest") == nil {
		t.Errorf("%d chains\n%s", len(part.Table.Chains), part.Table)
	}
}

// Of a large set sixteen elements are shown, and how many there are; sets that have the pod
// as a member are named.
func TestTheSetsOfAPart(t *testing.T) {
	var many, few inet.Elements
	for i := range 40 {
		many = many.With(inet.Element{Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})})
	}
	own := netip.MustParseAddr("10.0.0.1")
	few = few.With(inet.Element{Addr: own})
	p := &program.Program{
		Pods: []program.Pod{{Addr: own, Name: "shop/web", Ingress: "ingress4-x"}},
		Chains: []*program.Chain{{Name: "ingress4-x", Direction: program.Ingress, Family: inet.IPv4,
			Rules: []program.Rule{{PeerSet: "many"}}}},
		Sets: []*program.Set{{Name: "few", Kind: inet.Addrs, Family: inet.IPv4, Elements: few},
			{Name: "many", Kind: inet.Addrs, Family: inet.IPv4, Comment: "pods", Elements: many}},
	}
	part := OfPod(Render(p, program.Node{}), []netip.Addr{own})
	s := part.Table.Set("many")
	if s == nil || len(inet.Sorted(s.Elements)) != 16 || s.Comment != "16 of 40 elements; pods" {
		t.Error(part.Table)
	}
	if part.Table.Set("few") != nil || !slices.Contains(part.MemberOf, "few") || slices.Contains(part.MemberOf, "many") {
		t.Error(fmt.Sprint(part.MemberOf), part.Table)
	}
}
