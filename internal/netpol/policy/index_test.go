// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// Invariant 1: output is a function of the current snapshot, never of history
// or the order of events.
func TestInvariant1IncrementalEqualsRecomputed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		indexes := map[string]*policy.Index{}
		for _, node := range gen.Nodes() {
			indexes[node] = policy.NewIndex(node)
		}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			delta, snap := store.Take(), store.Snapshot()
			for _, node := range gen.Nodes() {
				indexes[node].Apply(delta)
				// A model is not asked for after every change.
				if rapid.Bool().Draw(t, "look") {
					sameProgram(t, snap, node, indexes[node])
				}
			}
			store.Update(gen.Change(t))
		}
		delta, snap := store.Take(), store.Snapshot()
		for _, node := range gen.Nodes() {
			indexes[node].Apply(delta)
			sameProgram(t, snap, node, indexes[node])
		}
	})
}

func sameProgram(t *rapid.T, snap *cluster.Snapshot, node string, x *policy.Index) {
	t.Helper()
	want := compile.Program(policy.Resolve(snap, node), compile.Options{}).String()
	got := compile.Program(x.Model(), compile.Options{}).String()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("node %s: program, from the snapshot (-), from the changes (+):\n%s\n%s", node, diff,
			gen.Describe(snap))
	}
}

// Invariant 11: what was published does not change when the cluster does.
func TestInvariant11AModelDoesNotChangeAfterwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, x := cluster.NewStore(), policy.NewIndex("one")
		gen.Fill(t, store)
		x.Apply(store.Take())
		model := x.Model()
		prog := compile.Program(model, compile.Options{})
		before := prog.String()
		for range 4 {
			store.Update(gen.Change(t))
			x.Apply(store.Take())
			x.Model()
		}
		if diff := cmp.Diff(before, prog.String()); diff != "" {
			t.Fatalf("a published program changed:\n%s", diff)
		}
		if diff := cmp.Diff(before, compile.Program(model, compile.Options{}).String()); diff != "" {
			t.Fatalf("a published model changed:\n%s", diff)
		}
	})
}

// A layout is computed again only when it can differ, so that a remote pod
// costs what its sets cost.
func TestARemotePodKeepsTheLayout(t *testing.T) {
	w := newWorld()
	w.set(w.namespace("shop", "team=a"), w.pod("shop/web", "one", "10.0.0.1", "app=web"))
	w.set(w.policy("shop/p", "app=web", "app=db"))
	layout := w.model().Layout
	w.set(w.pod("shop/db", "two", "10.0.0.2", "app=db"))
	if w.model().Layout != layout {
		t.Error("a remote pod made the layout new")
	}
	w.set(w.namespace("shop", "team=b"))
	if w.model().Layout != layout {
		t.Error("a relabelled namespace made the layout new")
	}
	w.set(w.pod("shop/web2", "one", "10.0.0.3", "app=web"))
	if w.model().Layout == layout {
		t.Error("a local pod kept the layout")
	}
}

// The destination of an ingress rule is a local subject, so the set of a named
// port there does not grow with the cluster.
func TestNamedPortsOfIngressRulesAreLocal(t *testing.T) {
	for direction, want := range map[string]string{"ingress": "10.0.0.1:80", "egress": "10.0.0.1:80 10.0.0.2:81"} {
		t.Run(direction, func(t *testing.T) {
			w := newWorld()
			w.set(w.namespace("shop", ""), w.podWithPort("shop/web", "one", "10.0.0.1", 80),
				w.podWithPort("shop/far", "two", "10.0.0.2", 81))
			w.set(w.namedPortPolicy("shop/p", "http", direction == "ingress"))
			model := w.model()
			if len(model.Sets) != 1 {
				t.Fatalf("%d sets, want 1", len(model.Sets))
			}
			for _, m := range model.Sets {
				if got := portsOf(m); got != want {
					t.Errorf("members = %s, want %s", got, want)
				}
			}
		})
	}
}
