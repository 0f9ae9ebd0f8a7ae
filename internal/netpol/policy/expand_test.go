// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/expand"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

// Invariant 1, over the scenarios that others wrote: however a case is told,
// the incremental state equals the recomputed one after every step.
func TestInvariant1EveryWayToTellACase(t *testing.T) {
	for _, name := range []string{"churn-seed3-4th.jsonl.gz", "cyclonus.jsonl.gz", "checklist.jsonl"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replays, changed := 0, 0
			for n, c := range readCases(t, name) {
				if len(c.Steps) < 2 {
					continue
				}
				// The nodes take turns: each way is played on each of them.
				nodes := c.Steps[0].Nodes()
				for i, r := range expand.Expand(statesOf(c)) {
					r.Name = c.Steps[0].ID + ": " + r.Name
					changed += expand.Check(t, r, nodes[(n+i)%len(nodes)])
					replays++
				}
			}
			if changed < 5*replays {
				t.Errorf("%d replays changed only %d programs", replays, changed)
			}
			t.Logf("%d replays, %d changes", replays, changed)
		})
	}
}

func readCases(t *testing.T, name string) []cases.Case {
	t.Helper()
	f, err := os.Open(filepath.Join("../../../testdata/cases", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := cases.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func statesOf(c cases.Case) []*cluster.Snapshot {
	var states []*cluster.Snapshot
	for _, s := range c.Steps {
		states = append(states, s.Snapshot())
	}
	return states
}

// Invariant 1, over random histories, whose clusters are less polite: pods
// without address, with the address of another, finished, on the host network.
func TestInvariant1EveryWayToTellARandomHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := cluster.NewStore()
		gen.Fill(t, store)
		states := []*cluster.Snapshot{store.Snapshot()}
		for range rapid.IntRange(1, 3).Draw(t, "states") {
			store.Update(gen.Change(t))
			states = append(states, store.Snapshot())
		}
		replays := expand.Expand(states)
		r := replays[rapid.IntRange(0, len(replays)-1).Draw(t, "way")]
		for _, node := range gen.Nodes() {
			expand.Check(t, r, node)
		}
	})
}
