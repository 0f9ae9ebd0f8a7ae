// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/fakenft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Invariant 3, for a process that dies between two transactions of a change, at
// any operation: no packet passes that is denied by the pod's old and by its new
// policies, and none is dropped that both allow, whatever of the sets' changes
// is already there. The next process finds the rest and ends where it should.
func TestInvariant3NoOperationOpensAPod(t *testing.T) {
	judged := map[program.Verdict]int{}
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		old := programOf(store.Snapshot())
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			store.Update(gen.Change(t))
		}
		now := programOf(store.Snapshot())
		before, after := nodesOf(t, old, now)
		from, to := ruleset.Render(old, before), ruleset.Render(now, after)
		kernel := fakenft.Kernel{ID: ruleset.Table()}
		if err := kernel.Commit(nft.Diff(nil, from)); err != nil {
			t.Fatal(err)
		}
		list := stable(old, now)
		loose, strict := mixes(old, now, true), mixes(old, now, false)
		ops := nft.Diff(from, to)
		for k, op := range ops {
			if err := kernel.Commit([]nft.Op{op}); err != nil {
				t.Fatal(err)
			}
			table := inner(kernel.Table())
			for _, f := range list {
				got := walk(table, after, f)
				judged[got]++
				if got == program.Accept && !anyOf(loose, f, program.Accept) || got == program.Drop && !anyOf(strict, f, program.Drop) {
					t.Fatalf("after %d of %d operations, the last is %q: %+v: %s, as neither before nor after\n%s\n%s\n%s", k+1, len(ops), op, f, got, old, now, table)
				}
			}
			next := fakenft.Kernel{ID: ruleset.Table()} // the kernel as it was found by the next process
			if err := next.Commit(nft.Diff(nil, kernel.Table())); err != nil {
				t.Fatal(err)
			}
			if err := next.Commit(nft.Diff(kernel.Table(), to)); err != nil {
				t.Fatalf("after %d of %d operations the next process cannot go on: %v", k+1, len(ops), err)
			}
			if diff := cmp.Diff(plain(to), plain(next.Table())); diff != "" {
				t.Fatalf("after %d of %d operations the next process ends elsewhere (+):\n%s", k+1, len(ops), diff)
			}
		}
	})
	if judged[program.Accept] == 0 || judged[program.Drop] == 0 {
		t.Errorf("verdicts were %v: the clusters are too dull", judged)
	}
}

// inner puts the ranges of a table where the walk looks for them.
func inner(t *nft.Table) *nft.Table {
	for _, s := range t.Sets {
		if s.Interval {
			for _, e := range s.Entries {
				s.Ranges = append(s.Ranges, e.Key.Range())
			}
			s.Entries = nil
		}
	}
	return t
}

// nodesOf returns the node before and after. Every pod keeps its interface; the
// kind of chains and the guard may change.
func nodesOf(t *rapid.T, programs ...*program.Program) (before, after program.Node) {
	both := &program.Program{}
	for _, p := range programs {
		both.Pods = append(both.Pods, p.Pods...)
	}
	slices.SortFunc(both.Pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
	both.Pods = slices.CompactFunc(both.Pods, func(a, b program.Pod) bool { return a.Addr == b.Addr })
	draw := func(when string) program.Node {
		return program.Node{FilterHook: rapid.IntRange(0, 3).Draw(t, when+" filter hook") == 3, NoGuard: rapid.Bool().Draw(t, when+" no guard"),
			Open: []string{uplink}, Attached: attached(both)}
	}
	return draw("old"), draw("new")
}

// walk is verdict for a table that is in the middle of a change.
func walk(table *nft.Table, n program.Node, f program.Flow) program.Verdict {
	in, out := link(n, f.Src), link(n, f.Dst)
	if f.FromNode || in == out && in == bridge {
		in = ""
	}
	hook := "postrouting"
	if f.ToNode {
		hook, out = "input", ""
	}
	for _, c := range table.Chains {
		if c.Base != nil && c.Base.Hook == hook && (walker{table: table, flow: f, state: nft.CtNew, in: in, out: out}).hook(c) == nft.Drop {
			return program.Drop
		}
	}
	return program.Accept
}

// stable returns some flows between pods that are there before and after, and
// others that are nobody's.
func stable(old, now *program.Program) (list []program.Flow) {
	both := &program.Program{}
	gone := map[string]bool{}
	for _, p := range []*program.Program{old, now} {
		for _, pod := range p.Pods {
			gone[pod.Addr.String()] = true
		}
	}
	for _, pod := range old.Pods {
		if slices.ContainsFunc(now.Pods, func(p program.Pod) bool { return p.Addr == pod.Addr }) {
			both.Pods = append(both.Pods, pod)
			delete(gone, pod.Addr.String())
		}
	}
	for i, f := range flows(both) {
		if i%17 == 0 && !gone[f.Src.String()] && !gone[f.Dst.String()] {
			list = append(list, f)
		}
	}
	return list
}

// mixes returns the programs in which each direction is judged by the old or by
// the new chains, while sets hold what either has (loose) or only what both have.
func mixes(old, now *program.Program, loose bool) (list []*program.Program) {
	base := program.Program{Sets: mixSets(old, now, loose), Chains: slices.Clone(old.Chains)}
	for _, c := range now.Chains {
		if old.Chain(c.Name) == nil {
			base.Chains = append(base.Chains, c)
		}
	}
	for _, egress := range []*program.Program{old, now} {
		for _, ingress := range []*program.Program{old, now} {
			p := base
			for _, pod := range old.Pods {
				if i := slices.IndexFunc(now.Pods, func(p program.Pod) bool { return p.Addr == pod.Addr }); i >= 0 {
					mixed := program.Pod{Addr: pod.Addr, Ingress: pod.Ingress, Egress: pod.Egress}
					if egress == now {
						mixed.Egress = now.Pods[i].Egress
					}
					if ingress == now {
						mixed.Ingress = now.Pods[i].Ingress
					}
					p.Pods = append(p.Pods, mixed)
				}
			}
			list = append(list, &p)
		}
	}
	return list
}

func mixSets(old, now *program.Program, loose bool) (list []*program.Set) {
	for _, s := range old.Sets {
		other, mixed := now.Set(s.Name), *s
		if other != nil && loose {
			for e := range other.Elements.All() {
				mixed.Elements = mixed.Elements.With(e)
			}
		} else if other != nil {
			for e := range s.Elements.All() {
				if !other.Elements.Has(e) {
					mixed.Elements = mixed.Elements.Without(e)
				}
			}
		}
		list = append(list, &mixed)
	}
	for _, s := range now.Sets {
		if old.Set(s.Name) == nil {
			list = append(list, s)
		}
	}
	return list
}

func anyOf(programs []*program.Program, f program.Flow, v program.Verdict) bool {
	return slices.ContainsFunc(programs, func(p *program.Program) bool { return program.Eval(p, f) == v })
}
