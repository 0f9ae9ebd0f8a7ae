// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// shared is a program with one chain, that isolates one pod, audits one, or both.
func shared(isolates, audits bool, rules ...program.Rule) *program.Program {
	p := &program.Program{Chains: []*program.Chain{{Name: "in", Direction: program.Ingress, Family: inet.IPv4,
		Rules: rules}}}
	if isolates {
		p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr("10.0.0.1"), Name: "a/isolated", Ingress: "in"})
	}
	if audits {
		p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr("10.0.0.2"), Name: "a/audited",
			AuditIngress: "in"})
	}
	return p
}

func TestWhichChainsAndPodsAreInForce(t *testing.T) {
	all := program.Rule{}
	for name, c := range map[string]struct {
		table, want *program.Program
		chain       bool
		pods        int
	}{
		"only isolates":       {shared(true, false, all), shared(true, false, all), true, 1},
		"only audits":         {shared(false, true, all), shared(false, true, all), true, 1},
		"both":                {shared(true, true, all), shared(true, true, all), true, 2},
		"audits one more":     {shared(true, false, all), shared(true, true, all), true, 1},
		"isolates one more":   {shared(false, true, all), shared(true, true, all), true, 1},
		"is new":              {&program.Program{}, shared(true, true, all), false, 0},
		"emptied, isolates":   {shared(true, false), shared(true, false, all), false, 1},
		"emptied, audits":     {shared(false, true), shared(false, true, all), false, 1},
		"emptied, both":       {shared(true, true), shared(true, true, all), false, 2},
		"without rules, both": {shared(true, true), shared(true, true), true, 2},
	} {
		for _, node := range []program.Node{{}, {DeniedGroup: 7}} {
			in := ruleset.FindInForce(ruleset.Render(c.table, node), c.want)
			if in.Chains["in"] != c.chain || len(in.Pods) != c.pods {
				t.Errorf("%s, group %d: the chain is in force: %t, and %d pods, want %t and %d", name,
					node.DeniedGroup, in.Chains["in"], len(in.Pods), c.chain, c.pods)
			}
		}
	}
}

// A pod that is judged by another chain than before is new, also if that has the same rules.
func TestAPodThatIsJudgedByAnotherChainIsNotInForce(t *testing.T) {
	before, now := shared(false, true, program.Rule{}), shared(false, true, program.Rule{})
	now.Pods[0].Ingress, now.Pods[0].AuditIngress = "in", ""
	for _, c := range [][2]*program.Program{{before, now}, {now, before}} {
		if in := ruleset.FindInForce(ruleset.Render(c[0], program.Node{}), c[1]); len(in.Pods) > 0 {
			t.Errorf("in force: %v", in.Pods)
		}
	}
}

// A table in which only one of two chains of the same content has its rules needs both written again.
func TestAChainOfWhichOneHasNoRulesIsNotInForce(t *testing.T) {
	want := shared(true, true, program.Rule{})
	table, emptied := ruleset.Render(want, program.Node{}), ruleset.Render(shared(true, true), program.Node{})
	for _, name := range []string{"in", "audit-in"} {
		for i, c := range table.Chains {
			if c.Name != name {
				continue
			}
			table.Chains[i] = emptied.Chains[i]
			if ruleset.FindInForce(table, want).Chains["in"] {
				t.Errorf("the chain counts as in force although %s has no rules", name)
			}
			table.Chains[i] = c
		}
	}
}
