// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial_test

import (
	"os"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/trial"
)

func newTrial(t *testing.T, w lab.Wiring, args ...string) *trial.Trial {
	t.Helper()
	tr, err := trial.New(t.Context(), trial.Config{Wiring: w, Nodes: []string{"node1", "node2"}, CNIBin: os.Getenv("PODWALL_CNI_BIN"),
		Agent: os.Getenv(agentVariable), AgentArgs: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// read returns every n-th case of a file of the repository, from the first on.
func read(t *testing.T, file string, n int) []cases.Case {
	t.Helper()
	f, err := os.Open("../../../testdata/cases/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := cases.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var list []cases.Case
	for i := 0; i < len(all); i += n {
		list = append(list, all[i])
	}
	return list
}

func check(t *testing.T, tr *trial.Trial, list []cases.Case) {
	t.Helper()
	var report strings.Builder
	sum, err := cases.Check(t.Context(), list, trial.KernelBackend{Trial: tr}, &report, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(sum.String())
	if !sum.OK() {
		lines := strings.SplitAfterN(report.String(), "\n", 31)
		t.Errorf("%s\n%s", sum.String(), strings.Join(lines[:min(30, len(lines))], ""))
	}
}

func TestKernelAgreesWithCasesOnEveryWiringAndDatapath(t *testing.T) {
	for _, w := range []lab.Wiring{lab.Routed, lab.Bridge} {
		for _, datapath := range []string{"nat", "filter"} {
			t.Run(string(w)+"/"+datapath, func(t *testing.T) {
				tr := newTrial(t, w, "--datapath="+datapath)
				for _, slice := range []struct {
					file  string
					every int
				}{{"recipes.jsonl", 1}, {"peer-defects.jsonl", 1}, {"linklocal.jsonl", 1}, {"checklist.jsonl", 2},
					{"cyclonus.jsonl.gz", 20}, {"fuzz-seed12-v6.jsonl.gz", 8}} {
					t.Run(slice.file, func(t *testing.T) { check(t, tr, read(t, slice.file, slice.every)) })
				}
			})
		}
	}
}

// Pods of virtual machines are on taps: found by their routes, they are enforced as on veth pairs.
func TestKernelAgreesWithRecipesOnTaps(t *testing.T) {
	for _, datapath := range []string{"nat", "filter"} {
		t.Run(datapath, func(t *testing.T) {
			check(t, newTrial(t, lab.Tap, "--datapath="+datapath), read(t, "recipes.jsonl", 1))
		})
	}
}
