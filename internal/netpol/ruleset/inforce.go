// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// InForce is what a table in the kernel has of a program, whoever wrote it.
type InForce struct {
	// Pods are judged by the chains that the program says.
	Pods map[program.Pod]bool
	// Chains are there with their rules. Their names are derived from the content.
	Chains map[string]bool
	// Sets are the members of the sets of addresses that are there.
	Sets map[string]inet.Elements
}

// FindInForce compares a table, nil for none, with a program. A chain that has no
// rule but those that every chain ends with is not in force, unless the program says
// no more. A chain may be there for isolated pods, for audited ones or for both: it is in
// force if one of these is there and none is without its rules. If one is absent, all pods
// that need it are new.
func FindInForce(t *nft.Table, p *program.Program) InForce {
	found := InForce{Pods: map[program.Pod]bool{}, Chains: map[string]bool{}, Sets: map[string]inet.Elements{}}
	if t == nil {
		return found
	}
	verdicts := map[nft.Key][2]nft.Verdict{}
	for _, f := range inet.Families {
		for i, name := range [2]string{setPodIngress, setPodEgress} {
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
		ingress, egress := chainsOf(pod)
		want := [2]nft.Verdict{judge(nft.Entry{}, ingress).Verdict}
		if egress != "" {
			want[1] = judge(nft.Entry{}, egress).Verdict
		}
		if verdicts[addrKey(pod.Addr)] == want {
			found.Pods[pod] = true
		}
	}
	chains := map[string]*nft.Chain{}
	for _, c := range t.Chains {
		chains[c.Name] = c
	}
	emptied := map[string]bool{}
	for _, as := range renditions(p, look{}) {
		switch there := chains[as.look.name(as.chain.Name)]; {
		case there == nil: // then no pod in force needs it
		case len(as.chain.Rules) == 0 || allows(there, as.chain):
			found.Chains[as.chain.Name] = true
		default:
			emptied[as.chain.Name] = true
		}
	}
	maps.DeleteFunc(found.Chains, func(name string, _ bool) bool { return emptied[name] })
	for _, s := range p.Sets {
		if there := t.Set(s.Name); there != nil && there.Key == renderSet(s).Key && !there.Interval && there.Plain() {
			found.Sets[s.Name] = there.Elements
		}
	}
	return found
}

// allows reports whether a chain has a rule that is not at the end of every such
// chain, with denied packets recorded or not, of isolated pods or of audited ones.
func allows(c *nft.Chain, like *program.Chain) bool {
	var end nft.Chain
	finish(&end, like, look{})
	finish(&end, like, look{recorded: true})
	finish(&end, like, look{audit: true})
	finish(&end, like, look{audit: true, recorded: true})
	return slices.ContainsFunc(c.Rules, func(r nft.Rule) bool {
		return !slices.ContainsFunc(end.Rules, func(e nft.Rule) bool { return r.Equal(e) })
	})
}
