// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/fakenft"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// A renderer that has seen a history says the same as one that has not, and the changes lead there, also in
// a kernel that refuses what the kernel refuses.
func TestHistoriesLeadToTheSameTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(inet.Families[:]).Draw(t, "family")
		var renderer ruleset.Renderer
		kernel := fakenft.Kernel{ID: ruleset.Table(f)}
		p := genproxy.Program(t, f)
		var actual *nft.Table
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			next := renderer.Render(p, ruleset.Settings{})
			want := ruleset.Render(p, ruleset.Settings{})
			if diff := cmp.Diff(want.String(), next.String()); diff != "" {
				t.Fatalf("after a history (-without +with):\n%s", diff)
			}
			for _, stage := range stages(nft.Diff(actual, next)) {
				if err := kernel.Commit(stage); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want.String(), kernel.Table().String()); diff != "" {
				t.Fatalf("in the kernel (-want +got):\n%s", diff)
			}
			actual, p = next, genproxy.Change(t, p)
		}
	})
}

// stages splits a change as a commit does at the least: each stage, and within one each operation with
// elements.
func stages(ops []nft.Op) (list [][]nft.Op) {
	for i, op := range ops {
		if i == 0 || op.Elements() > 0 || op.Kind.Stage() != ops[i-1].Kind.Stage() {
			list = append(list, nil)
		}
		list[len(list)-1] = append(list[len(list)-1], op)
	}
	return list
}

// Between any two transactions of a change, whoever is sent to choose among backends finds every one of
// them: a Service is whole when it appears, and stays so until it is gone.
func TestAServiceIsWholeBetweenTransactions(t *testing.T) {
	checked := 0
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(inet.Families[:]).Draw(t, "family")
		before := genproxy.Program(t, f)
		after := before
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			after = genproxy.Change(t, after)
		}
		kernel := fakenft.Kernel{ID: ruleset.Table(f)}
		from, to := ruleset.Render(before, ruleset.Settings{}), ruleset.Render(after, ruleset.Settings{})
		if err := kernel.Commit(nft.Diff(nil, from)); err != nil {
			t.Fatal(err)
		}
		for _, stage := range stages(nft.Diff(from, to)) {
			if err := kernel.Commit(stage); err != nil {
				t.Fatal(err)
			}
			checked += wholeIn(t, kernel.Table(), before, after)
		}
	})
	if checked == 0 {
		t.Error("nothing was checked")
	}
}

// wholeIn wants each front of the table to be answered as one of the programs says, with all slots of what
// it chooses from, and returns how many were compared.
func wholeIn(t *rapid.T, table *nft.Table, programs ...*program.Program) (checked int) {
	slots := map[nft.Key]bool{}
	for _, name := range []string{"backends", "port-backends", "sticky-backends", "sticky-port-backends"} {
		for _, e := range table.Set(name).Entries {
			slots[e.Key] = true
		}
	}
	for _, name := range []string{"services", "node-ports"} {
		for _, e := range table.Set(name).Entries {
			front := program.Front{Addr: e.Key.Addr, Protocol: e.Key.Protocol, Port: e.Key.Port}
			if e.Verdict.Chain != "" && table.Chain(e.Verdict.Chain) == nil {
				t.Fatalf("%s leads to the chain %s, which is missing", front, e.Verdict.Chain)
			}
			i := slices.IndexFunc(programs, func(p *program.Program) bool { return verdictIn(p, front) == e.Verdict })
			if i < 0 {
				t.Fatalf("%s is answered by %s, as in no program", front, e.Verdict.Chain)
			}
			r, _ := programs[i].Route(front)
			for _, pick := range []program.Pick{r.Inside, r.Outside} {
				for n := range pick.Count {
					key := nft.Key{Element: inet.Element{Addr: front.Addr, Protocol: front.Protocol, Port: front.Port},
						Slot: pick.First + n}
					if !slots[key] {
						t.Fatalf("%s is answered by %s, and its slot %d is missing", front, e.Verdict.Chain, pick.First+n)
					}
					checked++
				}
			}
		}
	}
	return checked
}

// verdictIn returns the verdict that a program's table has for a front.
func verdictIn(p *program.Program, f program.Front) nft.Verdict {
	for _, name := range []string{"services", "node-ports"} {
		for e := range ruleset.Render(p, ruleset.Settings{}).Set(name).Content.All() {
			if e.Key.Addr == f.Addr && e.Key.Protocol == f.Protocol && e.Key.Element.Port == f.Port {
				return e.Verdict
			}
		}
	}
	return nft.Verdict{}
}

// kernelHistories are the histories of every run through the real kernel.
const kernelHistories = 10

// The real kernel takes every change, has what was written, and nft lists it.
func TestHistoriesGoThroughTheKernel(t *testing.T) {
	for _, f := range inet.Families {
		ns := nftrun.Namespace(t)
		c := connIn(t, ns, f)
		for seed := range kernelHistories {
			p := rapid.Custom(func(t *rapid.T) *program.Program { return genproxy.Program(t, f) }).Example(seed)
			want := ruleset.Render(p, ruleset.Settings{})
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Commit(nft.Diff(got, want)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			inKernel(t, fmt.Sprintf("seed %d", seed), c, want)
			nftrun.Run(t, ns, "", "list", "ruleset")
		}
	}
}
