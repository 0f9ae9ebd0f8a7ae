// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

// tally counts what was compared. An endpoint that asks for itself, and hosts
// outside among themselves, are not in it.
type tally struct {
	states, steps    int
	allowed, denied  int // as observed
	byRule, ownNode  int // what the oracle has allowed because of a rule, or to the own node
	bothSides        int // denied or allowed where both ends are isolated
	unobserved, diff int
}

func (y tally) verdicts() int { return y.allowed + y.denied }

func (y tally) String() string {
	return fmt.Sprintf("%d cases in %d steps, %d verdicts: %d allowed (%d by a rule, %d from the own node), %d denied, %d with both ends isolated; %d differences, %d not observed",
		y.states, y.steps, y.verdicts(), y.allowed, y.byRule, y.ownNode, y.denied, y.bothSides, y.diff, y.unobserved)
}

// expect writes the oracle's verdicts into the step and returns the function
// that gives the answer of a cell.
func expect(t *testing.T, step *cases.Step) func(probe, src, dst int) oracle.Answer {
	t.Helper()
	ends, err := step.Ends()
	if err != nil {
		t.Fatal(err)
	}
	snap := step.Snapshot()
	answer := func(probe, src, dst int) oracle.Answer {
		p := step.Probes[probe]
		protocol, _ := cluster.ParseProtocol(p.Protocol)
		return oracle.Judge(snap, oracle.Flow{Protocol: protocol, Port: p.Port, Src: place(ends[src]), Dst: place(ends[dst])})
	}
	for i := range step.Probes {
		step.Probes[i].Expected = nil
		for src := range ends {
			var row strings.Builder
			for dst := range ends {
				row.WriteByte(mark(ends[src], ends[dst], func() bool { return answer(i, src, dst).Allowed }))
			}
			step.Probes[i].Expected = append(step.Probes[i].Expected, row.String())
		}
	}
	return answer
}

func place(e cases.End) oracle.Endpoint {
	if e.Pod == nil {
		return oracle.Addr(e.Addr)
	}
	return oracle.Endpoint{Pod: e.Pod.Key(), Addr: e.Addr}
}

func mark(src, dst cases.End, allowed func() bool) byte {
	switch {
	case src.Name == dst.Name, src.Pod == nil && dst.Pod == nil:
		return cases.NotObserved
	case allowed():
		return '1'
	}
	return '0'
}

// maxReported bounds how many cells of a step are told one by one.
const maxReported = 5

// compare counts the step and reports the cells that differ.
func compare(t *testing.T, y *tally, step *cases.Step, answer func(probe, src, dst int) oracle.Answer, o cases.Observed) {
	t.Helper()
	if text := difference(t, y, step, answer, o); text != "" {
		t.Error(text)
	}
}

// difference counts the step and returns the cells that differ, with the oracle's reason and with the step as
// a line that podwall-lab check reads; nothing if none does.
func difference(t *testing.T, y *tally, step *cases.Step, answer func(probe, src, dst int) oracle.Answer,
	o cases.Observed) string {
	t.Helper()
	y.steps++
	var wrong []string
	for i, p := range step.Probes {
		for src, row := range p.Expected {
			for dst := range len(row) {
				if row[dst] == cases.NotObserved {
					continue
				}
				got, a := o.Probes[i].Observed[src][dst], answer(i, src, dst)
				y.count(got, a)
				if got != row[dst] {
					wrong = append(wrong, fmt.Sprintf("%s → %s %s: observed %c, oracle: %s", step.Endpoints[src], step.Endpoints[dst], &p, got, a))
				}
			}
		}
	}
	if len(wrong) == 0 {
		return ""
	}
	line, err := json.Marshal(step)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s (%s): %d cells differ\n%s\n%s", step.ID, step.Description, len(wrong),
		strings.Join(wrong[:min(maxReported, len(wrong))], "\n"), line)
}

func (y *tally) count(got byte, a oracle.Answer) {
	switch got {
	case '1':
		y.allowed++
	case '0':
		y.denied++
	default:
		y.unobserved++
		return
	}
	if (got == '1') != a.Allowed {
		y.diff++
	}
	switch {
	case !a.Allowed:
	case a.Ingress.Cause == oracle.OwnNode:
		y.ownNode++
	case a.Ingress.Cause == oracle.Rule, a.Egress.Cause == oracle.Rule:
		y.byRule++
	}
	if a.Ingress.Isolated() && a.Egress.Isolated() {
		y.bothSides++
	}
}
