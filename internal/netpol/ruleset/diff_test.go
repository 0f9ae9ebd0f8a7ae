// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/fakenft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

func programOf(snap *cluster.Snapshot) *program.Program {
	return compile.Program(policy.Resolve(snap, "one"), compile.Options{})
}

func node(t *rapid.T) program.Node {
	links := []string{"veth1", "veth2", "br0"}
	return program.Node{
		FilterHook: rapid.IntRange(0, 3).Draw(t, "filter hook") == 3,
		NoGuard:    rapid.Bool().Draw(t, "no guard"),
		Ingress:    links[:rapid.IntRange(0, 3).Draw(t, "ingress links")],
		Egress:     links[rapid.IntRange(0, 3).Draw(t, "egress links"):],
		Bridges:    rapid.Bool().Draw(t, "bridges"),
	}
}

// From any state to any other: every transaction is one that the kernel takes,
// and leads to what was rendered.
func TestDiffLeadsFromEveryTableToEveryOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		kernel := fakenft.Kernel{ID: ruleset.Table()}
		var actual *nft.Table
		for range rapid.IntRange(2, 6).Draw(t, "steps") {
			desired := ruleset.Render(programOf(store.Snapshot()), node(t))
			if err := kernel.Commit(nft.Diff(actual, desired)); err != nil {
				t.Fatalf("%v\n%s", err, gen.Describe(store.Snapshot()))
			}
			if diff := cmp.Diff(plain(desired), plain(kernel.Table())); diff != "" {
				t.Fatalf("the kernel's table (+) is not the desired one (-):\n%s", diff)
			}
			actual = desired
			store.Update(gen.Change(t))
		}
	})
}

// plain is the text of a table without the comments of elements: a comment
// alone is no difference to Diff, so a pod's name may be older than its entry.
func plain(t *nft.Table) string {
	c := *t
	c.Sets = nil
	for _, s := range t.Sets {
		bare := *s
		bare.Entries = slices.Clone(s.Entries)
		for i := range bare.Entries {
			bare.Entries[i].Comment = ""
		}
		c.Sets = append(c.Sets, &bare)
	}
	return c.String()
}

// Invariant 7: the same program applied twice sends nothing, also when it was
// rendered anew, and also when the table was read back.
func TestInvariant7TheSameProgramTwiceSendsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap, n := gen.Snapshot(t), node(t)
		first, second := ruleset.Render(programOf(snap), n), ruleset.Render(programOf(snap), n)
		if ops := nft.Diff(first, second); len(ops) > 0 {
			t.Fatalf("%d operations for an equal program, first: %s", len(ops), ops[0])
		}
		if diff := cmp.Diff(first.String(), second.String()); diff != "" {
			t.Fatalf("two renders differ:\n%s", diff)
		}
	})
}

// Invariant 7: a one-pod change sends a handful of elements. A remote pod
// touches the sets that it belongs to, never a rule, a chain or a map.
func TestInvariant7ARemotePodIsElementsOnly(t *testing.T) {
	seen := 0 // in most clusters the pod is in no set
	gen.CheckUntil(t, func() bool { return seen > 0 }, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		n := node(t)
		pod := gen.Pod(t)
		pod.Node = "two"
		before := programOf(without(store, pod.Key))
		store.Update(func(tx *cluster.Tx) { tx.SetPod(pod) })
		after := programOf(store.Snapshot())
		heir := inherits(store.Snapshot(), pod)
		handful := 0
		for _, s := range after.Sets {
			// An element for each address and, in sets of ports, each port.
			handful += len(pod.IPs) * max(1, len(pod.NamedPorts())*bit(s.Kind == inet.AddrPorts))
		}
		elements := 0
		for _, op := range nft.Diff(ruleset.Render(before, n), ruleset.Render(after, n)) {
			if op.Set.Map || op.Kind != nft.AddElements && !(heir && op.Kind == nft.DeleteElements) {
				t.Fatalf("a new remote pod needs %q\n%s", op, gen.Describe(store.Snapshot()))
			}
			elements += op.Elements()
		}
		if seen += elements; elements > handful && !heir {
			t.Fatalf("%d elements for one pod in %d sets", elements, len(after.Sets))
		}
	})
}

// inherits reports whether the pod has an address that a leaving pod still
// names. Then it also ends what the other put into sets.
func inherits(snap *cluster.Snapshot, pod *cluster.Pod) bool {
	return slices.ContainsFunc(snap.Pods, func(p *cluster.Pod) bool {
		return p.Terminating && slices.ContainsFunc(p.IPs, func(a netip.Addr) bool { return slices.Contains(pod.IPs, a) })
	})
}

// without returns the store's cluster after the pod is gone from it.
func without(s *cluster.Store, k cluster.Key) *cluster.Snapshot {
	s.Update(func(tx *cluster.Tx) { tx.DeletePod(k) })
	return s.Snapshot()
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Invariant 3: on the way in what is referred to comes before the reference,
// on the way out after it, so that a change which is committed in parts opens
// nobody: the entry that isolates a pod comes after everything that its chain
// needs.
func TestInvariant3ReferentsComeFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		n := node(t)
		kernel := fakenft.Kernel{ID: ruleset.Table()}
		from := ruleset.Render(programOf(store.Snapshot()), n)
		if err := kernel.Commit(nft.Diff(nil, from)); err != nil {
			t.Fatal(err)
		}
		store.Update(gen.Change(t))
		// Every operation on its own is a transaction that the kernel takes.
		for _, op := range nft.Diff(from, ruleset.Render(programOf(store.Snapshot()), n)) {
			if err := kernel.Commit([]nft.Op{op}); err != nil {
				t.Fatalf("%v\n%s", err, gen.Describe(store.Snapshot()))
			}
		}
	})
}

// What refuses cut connections comes and goes without the rest, and leads to the
// table that Render makes.
func TestTheCutComesAndGoesWithoutTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		p, n := programOf(store.Snapshot()), node(t)
		n.OpenUnknown = rapid.Bool().Draw(t, "open")
		n.Cut = rapid.Bool().Draw(t, "cut")
		kernel := fakenft.Kernel{ID: ruleset.Table()}
		table := ruleset.Render(p, n)
		if err := kernel.Commit(nft.Diff(nil, table)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if same, ops := ruleset.WithCut(table, n); same != table || len(ops) > 0 {
				t.Fatalf("the same again takes %d changes", len(ops))
			}
			before := table.String()
			n.Cut = !n.Cut
			next, ops := ruleset.WithCut(table, n)
			if table.String() != before {
				t.Fatal("the table that was given is another one")
			}
			want := ruleset.Render(p, n)
			if diff := cmp.Diff(want.String(), next.String()); diff != "" {
				t.Fatalf("it is another table than Render's (-render +with):\n%s", diff)
			}
			if left := nft.Diff(next, want); len(left) > 0 {
				t.Fatalf("a pass would change %d things", len(left))
			}
			if err := kernel.Commit(ops); err != nil {
				t.Fatal(err)
			}
			holds := kernel.Table()
			if !n.Cut { // the counter stays, for what it has counted
				holds.Counters = slices.DeleteFunc(slices.Clone(holds.Counters), func(name string) bool { return name == ruleset.CounterCut })
			}
			if diff := cmp.Diff(plain(want), plain(holds)); diff != "" {
				t.Fatalf("the kernel's table (+) is not the desired one (-):\n%s", diff)
			}
			table = next
		}
	})
}
