// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Whatever the API says of a pod's address, the node reaches everybody: its API
// server first of all. A pod with the node's address that is isolated in every way
// does not change that, with chains of either kind, at any hook.
func TestTheNodeIsNeverJudgedAsAPod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		p, n := programOf(store.Snapshot()), node(t)
		n.Attached, n.OpenUnknown, n.Open = attached(p), rapid.Bool().Draw(t, "open"), []string{uplink}
		for _, v4 := range []bool{true, false} {
			family := inet.IPv6
			if v4 {
				family = inet.IPv4
			}
			liar := program.Pod{Addr: gen.NodeAddr("one", v4), Name: "x/liar", Egress: fmt.Sprintf("egress%d-liar", family),
				Ingress: fmt.Sprintf("ingress%d-liar", family)}
			p.Pods = append(slices.Clone(p.Pods), liar)
			p.Chains = append(slices.Clone(p.Chains),
				&program.Chain{Name: liar.Egress, Direction: program.Egress, Family: family},
				&program.Chain{Name: liar.Ingress, Direction: program.Ingress, Family: family})
		}
		slices.SortFunc(p.Pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
		slices.SortFunc(p.Chains, func(a, b *program.Chain) int { return cmp.Compare(a.Name, b.Name) })
		table := ruleset.Render(p, n)
		for _, f := range flows(p) {
			if !f.FromNode {
				continue
			}
			if got := verdict(table, n, f, nil); got != program.Accept {
				t.Fatalf("from the node to %s, protocol %s port %d: %s", f.Dst, f.Protocol, f.DstPort, got)
			}
			if got := program.Eval(p, f); got != program.Accept {
				t.Fatalf("the interpreter: from the node to %s: %s", f.Dst, got)
			}
		}
	})
}
