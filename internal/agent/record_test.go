// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/netpol/policy"
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

// The status names the first of the pods that only audit mode leaves open, in whatever order they come.
func TestAuditedPodsAreNamed(t *testing.T) {
	m := &policy.Model{Layout: &policy.Layout{}}
	for i := range observe.MaxAudited + 5 {
		w := policy.Workload{Pod: &cluster.Pod{Key: cluster.Key{Namespace: "a", Name: fmt.Sprintf("p%02d", 98-i)}}}
		w.AuditEgress.Isolated = i%2 == 0
		w.AuditIngress.Isolated = i%2 == 1
		m.Layout.Workloads = append(m.Layout.Workloads, w, policy.Workload{Pod: &cluster.Pod{}})
	}
	n, names := audited(m)
	if n != observe.MaxAudited+5 || len(names) != observe.MaxAudited || names[0] != "a/p74" || !slices.IsSorted(names) {
		t.Errorf("%d pods, named are %v", n, names)
	}
}
