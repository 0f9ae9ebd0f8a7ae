// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/gencase"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// states is how many states a random case has: the first, and changes of it.
const states = 5

// Programs follow the changes of a case as an agent's do.
func TestProgramsAgreeWithTheOracleOnRandomCases(t *testing.T) {
	s := readSettings(t)
	var y tally
	start, seed := time.Now(), s.seed
	for ; y.verdicts() < s.verdicts && y.diff == 0; seed++ {
		y.states += states
		nodes := followers{}
		b := cases.NewProgramBackend(nodes.compile, func(p *program.Program, f program.Flow) bool { return program.Eval(p, f) == program.Accept })
		for _, step := range gencase.Case(seed, states).Steps {
			answer := expect(t, step)
			o, err := b.Judge(t.Context(), step)
			if err != nil {
				t.Fatalf("%s: %v", step.ID, err)
			}
			compare(t, &y, step, answer, o)
		}
	}
	t.Logf("programs, seeds %d to %d: %s; in %.1f s", s.seed, seed-1, y, time.Since(start).Seconds())
	y.wantLively(t, s)
}

// followers are the nodes' states, by node: each learns only what changed.
type followers map[string]*follower

type follower struct {
	store  *cluster.Store
	index  *policy.Index
	layout *policy.Layout
	chains *compile.Layout // compiled once for a layout, as the agent does
}

func (l followers) compile(snap *cluster.Snapshot, node string) *program.Program {
	f := l[node]
	if f == nil {
		f = &follower{store: cluster.NewStore(), index: policy.NewIndex(node)}
		f.store.Allow(cluster.Allowance{Audit: true, AuditNamespaces: true})
		l[node] = f
	}
	f.store.Update(func(tx *cluster.Tx) {
		tx.ReplaceNamespaces(snap.Namespaces)
		tx.ReplacePods(snap.Pods)
		tx.ReplacePolicies(snap.Policies)
	})
	f.index.Apply(f.store.Take())
	m := f.index.Model()
	if f.chains == nil || f.layout != m.Layout {
		f.layout, f.chains = m.Layout, compile.NewLayout(m.Layout, compile.Options{})
	}
	return f.chains.Program(m.Sets)
}

// wantLively fails when what was compared is too dull to show anything. It is
// judged where luck plays no part: a fixed seed, or very many verdicts.
func (y tally) wantLively(t *testing.T, s settings) {
	t.Helper()
	n := y.verdicts()
	if s.seed != shortSeed && n < 200_000 {
		return
	}
	if y.byRule < n/50 || y.denied < n/20 || y.ownNode == 0 || y.bothSides < n/50 || n == 0 {
		t.Errorf("too dull to show anything: %s", y)
	}
}
