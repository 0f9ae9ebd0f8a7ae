// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"

	"github.com/podwall/podwall/internal/netpol/program"
)

// InForce is what a table in the kernel has of a program, whoever wrote it.
type InForce struct {
	// Pods are judged by the chains that the program says.
	Pods map[program.Pod]bool
	// Chains are there with their rules. Their names are derived from the content.
	Chains map[string]bool
	// Sets are the members of the sets of addresses that are there.
	Sets map[string]program.Elements
}

// FindInForce compares a table, nil for none, with a program. A chain that has no
// rule but those that every chain ends with is not in force, unless the program says
// no more.
func FindInForce(t *Table, p *program.Program) InForce {
	found := InForce{Pods: map[program.Pod]bool{}, Chains: map[string]bool{}, Sets: map[string]program.Elements{}}
	if t == nil {
		return found
	}
	verdicts := map[Key][2]Verdict{}
	for _, f := range program.Families {
		for i, name := range [2]string{"to", "from"} {
			if s := t.Set(perFamily(name, f)); s != nil {
				for _, e := range s.Entries {
					v := verdicts[e.Key]
					v[i] = e.Verdict
					verdicts[e.Key] = v
				}
			}
		}
	}
	for _, pod := range p.Pods {
		want := [2]Verdict{judge(Entry{}, pod.Ingress, Jump).Verdict}
		if pod.Egress != "" {
			want[1] = judge(Entry{}, pod.Egress, Jump).Verdict
		}
		if verdicts[addrKey(pod.Addr)] == want {
			found.Pods[pod] = true
		}
	}
	chains := map[string]*Chain{}
	for _, c := range t.Chains {
		chains[c.Name] = c
	}
	for _, c := range p.Chains {
		if there := chains[c.Name]; there != nil && (len(c.Rules) == 0 || there.allows(c)) {
			found.Chains[c.Name] = true
		}
	}
	for _, s := range p.Sets {
		if there := t.Set(s.Name); there != nil && there.Key == renderSet(s).Key && !there.Interval && there.plain() {
			found.Sets[s.Name] = there.Elements
		}
	}
	return found
}

// allows reports whether a chain has a rule that is not at the end of every such
// chain.
func (c *Chain) allows(like *program.Chain) bool {
	var end Chain
	end.finish(like)
	return slices.ContainsFunc(c.Rules, func(r Rule) bool {
		return !slices.ContainsFunc(end.Rules, func(e Rule) bool { return sameRule(r, e) })
	})
}
