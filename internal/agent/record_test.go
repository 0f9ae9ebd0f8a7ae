// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/observe"
)

// A counter without a reason would hide what it counts.
func TestEveryCounterOfTheRulesHasItsReason(t *testing.T) {
	node := program.Node{Cut: true, PodBridges: []string{"cni0"},
		Ported: []program.Attachment{{Link: "cni0", Port: "port1", Addr: netip.MustParseAddr("10.0.0.1")}}}
	counters := slices.Concat(ruleset.Render(&program.Program{}, node).Counters, ruleset.RenderBridge(node).Counters)
	slices.Sort(counters)
	reasons := dropReasons()
	if known := slices.Sorted(maps.Keys(reasons)); !slices.Equal(counters, known) {
		t.Errorf("the rules count\n%v\nreasons are known of\n%v", counters, known)
	}
	ones := map[string]uint64{}
	for _, c := range counters {
		ones[c] = 1
	}
	drops, sum := dropsOf(ones), uint64(0)
	for _, r := range observe.DropReasons() {
		if drops[r] == 0 {
			t.Errorf("nothing counts for %s", r)
		}
		sum += drops[r]
	}
	const others = 3 // the self-test's own, and two of audit mode
	if want := uint64(len(counters)) - others; sum != want {
		t.Errorf("%d of %d drops are counted", sum, want)
	}
}

// What the gate answers and what the metric can say are two lists of two packages that
// do not know each other.
func TestEveryAnswerOfTheGateIsCounted(t *testing.T) {
	var all []string
	for _, a := range []gate.Answer{gate.AnsweredEnforced, gate.AnsweredIsolated, gate.AnsweredUnknown,
		gate.AnsweredNone, gate.AnsweredRefused} {
		all = append(all, string(a))
	}
	if can := observe.GateAnswers(); !slices.Equal(can, all) {
		t.Errorf("the metric can say %v, the gate says %v", can, all)
	}
}
