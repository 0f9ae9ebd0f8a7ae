// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/fakenft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// disorder adds pods to a program whose addresses others have too: the self-test's
// and those of other pods.
func disorder(t *rapid.T, p *program.Program) {
	addrs := []netip.Addr{ruleset.SelfTest(inet.IPv4), ruleset.SelfTest(inet.IPv6)}
	chains := map[program.Direction][]string{program.Ingress: {""}, program.Egress: {""}}
	for _, pod := range p.Pods {
		addrs = append(addrs, pod.Addr)
	}
	for _, c := range p.Chains {
		chains[c.Direction] = append(chains[c.Direction], c.Name)
	}
	p.Pods = slices.Clone(p.Pods)
	for range rapid.IntRange(0, 4).Draw(t, "more pods") {
		p.Pods = append(p.Pods, program.Pod{Addr: rapid.SampledFrom(addrs).Draw(t, "address"), Name: "more/pod",
			Ingress: rapid.SampledFrom(chains[program.Ingress]).Draw(t,
				"ingress"), Egress: rapid.SampledFrom(chains[program.Egress]).Draw(t, "egress")})
	}
	slices.SortStableFunc(p.Pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
}

// wired wires the pods, some of them twice.
func wired(t *rapid.T, p *program.Program) (list []program.Attachment) {
	for _, pod := range p.Pods {
		for range rapid.IntRange(0, 2).Draw(t, "attached") {
			link := rapid.SampledFrom([]string{"veth1", "br0"}).Draw(t, "link")
			list = append(list, program.Attachment{Link: link, Addr: pod.Addr,
				Port: rapid.SampledFrom([]string{"", "port1", "port2"}).Draw(t, "port")})
		}
	}
	return list
}

// Two sources may write one key. One transaction with both is refused for ever,
// and no change of anybody is enforced.
func TestNoKeyIsWrittenTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		p, n := programOf(store.Snapshot()), node(t)
		disorder(t, p)
		n.Attached = wired(t, p)
		n.Ported = n.Attached
		n.ClosedBridges = []string{"br0", "br0"}
		n.PodBridges = []string{"br0"}
		tables := []*nft.Table{ruleset.Render(p, n), ruleset.RenderBridge(n)}
		for _, table := range tables {
			if table == nil {
				continue
			}
			for _, s := range table.Sets {
				if k, twice := repeated(s); twice {
					t.Fatalf("set %s has two entries for %v", s.Name, k)
				}
			}
			kernel := fakenft.Kernel{ID: ruleset.Table()}
			if err := kernel.Commit(nft.Diff(nil, table)); err != nil {
				t.Fatal(err)
			}
		}
		closedWins(t, p, tables[0])
	})
}

func repeated(s *nft.Set) (nft.Key, bool) {
	seen := map[nft.Key]bool{}
	for _, e := range s.Entries {
		if seen[e.Key] || s.Elements.Has(e.Key.Element) {
			return e.Key, true
		}
		seen[e.Key] = true
	}
	return nft.Key{}, false
}

// closedWins wants nobody to be open who is isolated in one of several entries.
func closedWins(t *rapid.T, p *program.Program, table *nft.Table) {
	for _, pod := range p.Pods {
		f := inet.FamilyOf(pod.Addr)
		for set, chain := range map[string]string{"pod-ingress": pod.Ingress, "pod-egress": pod.Egress} {
			entries := table.Set(fmt.Sprintf("%s%d", set, f)).Entries
			i := slices.IndexFunc(entries, func(e nft.Entry) bool { return e.Key.Addr == pod.Addr })
			selfTest := set == "pod-ingress" && pod.Addr == ruleset.SelfTest(f)
			switch {
			case selfTest && entries[i].Verdict.Chain != "self-test":
				t.Fatalf("the self-test's address leads to %v", entries[i].Verdict)
			case chain != "" && !selfTest && (i < 0 || entries[i].Verdict != nft.Verdict{Kind: nft.Jump, Chain: chain} && entries[i].Verdict.Kind != nft.Drop):
				t.Fatalf("%s in %s%d is not closed", cmp.Or(pod.Name, "a pod"), set, f)
			}
		}
	}
}
