// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"os"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/gencase"
	"github.com/podwall/podwall/internal/lab/trial"
)

// variant is one way in which pods are wired and packets are judged.
type variant struct {
	wiring   lab.Wiring
	datapath string
}

func variants() []variant {
	return []variant{{lab.Routed, "nat"}, {lab.Bridge, "nat"}, {lab.Routed, "filter"}, {lab.Bridge, "filter"}}
}

func (v variant) String() string { return string(v.wiring) + "/" + v.datapath }

// perBed is how many states one bed lives for: many, since the agents must
// follow a long history of changes, but one broken bed should spoil little.
const perBed = 100

func TestKernelAgreesWithTheOracleOnRandomCases(t *testing.T) {
	s := readSettings(t)
	start, seed, all := time.Now(), s.seed, &run{}
	for _, v := range variants() {
		t.Run(v.String(), func(t *testing.T) {
			r := &run{}
			first, began := seed, time.Now()
			for want := (s.states + len(variants()) - 1) / len(variants()); r.states < want && !t.Failed(); {
				seed = r.bed(t, v, seed, min(perBed, want-r.states))
				t.Logf("%s, seeds %d to %d: %s; in %.1f s", v, first, seed-1, r, time.Since(began).Seconds())
			}
			all.add(r)
		})
	}
	t.Logf("kernel, seeds %d to %d: %s; in %.1f s", s.seed, seed-1, all, time.Since(start).Seconds())
	if !t.Failed() {
		all.wantLively(t, s)
	}
}

// bed judges at least so many states on a bed of its own and returns the next
// seed.
func (r *run) bed(t *testing.T, v variant, seed uint64, want int) uint64 {
	t.Helper()
	tr, err := trial.New(t.Context(), trial.Config{Wiring: v.wiring, Nodes: []string{"node1", "node2"},
		Agent: os.Getenv(entry.AgentVariable), AgentArgs: []string{"--datapath=" + v.datapath}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		r.packets.add(tr.Totals())
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}()
	for until := r.states + want; r.states < until && !t.Failed(); seed++ {
		r.states += states
		for _, step := range gencase.Case(seed, states).Steps {
			answer := expect(t, step)
			compare(t, &r.tally, step, answer, r.judge(t, trial.KernelBackend{Trial: tr}, step))
		}
	}
	return seed
}

// judge asks the kernel. What stays a problem is a failure.
func (r *run) judge(t *testing.T, k trial.KernelBackend, step *cases.Step) cases.Observed {
	t.Helper()
	o, err := r.ask(t, k, step)
	if err != nil {
		t.Errorf("%s (%s): %v", step.ID, step.Description, err)
	}
	if len(o.Probes) == 0 {
		t.FailNow()
	}
	return o
}

// ask asks the kernel. A problem that is no verdict, as an answer that got lost on a busy machine, is asked
// once more.
func (r *run) ask(t *testing.T, k trial.KernelBackend, step *cases.Step) (cases.Observed, error) {
	t.Helper()
	o, err := k.Judge(t.Context(), step)
	if err != nil && len(o.Probes) > 0 {
		t.Logf("%s: asked again: %v", step.ID, err)
		r.again++
		o, err = k.Judge(t.Context(), step)
	}
	return o, err
}
