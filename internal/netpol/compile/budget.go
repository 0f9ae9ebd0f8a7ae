// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// Budgets bound the number of kernel rules that the policies of one namespace need on a node.
// docs/limits.md gives the reasons for the figures.
const (
	// MaxChainRules is the budget of one chain, which serves the pods with the same policies in one
	// family and direction.
	MaxChainRules = 8_192
	// MaxNamespaceRules is the budget of all chains of a namespace.
	MaxNamespaceRules = 32_768
	// maxDiagnostics bounds the diagnostics about one layout.
	maxDiagnostics = 100
)

// budget counts the rules of a layout.
type budget struct {
	rules   map[string]int // by namespace
	refused map[*chain]bool
	found   map[cluster.Diagnostic]bool
}

func newBudget() budget {
	return budget{rules: map[string]int{}, refused: map[*chain]bool{}, found: map[cluster.Diagnostic]bool{}}
}

// take counts a chain, and reports whether there is room for it.
func (b *budget) take(c *chain) bool {
	namespace := c.policies[0].Policy.Key.Namespace // a pod's policies are in its namespace
	for _, p := range c.left {
		b.say(cluster.Diagnostic{Severity: cluster.Error, Kind: "NetworkPolicy", Object: p.Policy.Key, Field: "spec",
			Message: fmt.Sprintf("the policies that select a pod together have more than %d rules: this one allows "+
				"nothing there, its pods stay isolated", MaxChainRules),
			Cure: "write fewer rules, with more peers and ports in each; docs/limits.md has the figures"})
	}
	n := b.rules[namespace] + c.size
	if n > MaxNamespaceRules {
		b.refused[c] = true
		b.say(cluster.Diagnostic{Severity: cluster.Error, Kind: "Namespace", Object: cluster.Key{Name: namespace},
			Message: fmt.Sprintf("its policies have more than %d rules on this node: some of its pods are isolated "+
				"and allowed nothing", MaxNamespaceRules),
			Cure: "select more pods by each policy, or write fewer rules with more peers and ports in each; " +
				"docs/limits.md has the figures"})
		return false
	}
	b.rules[namespace] = n
	return true
}

func (b *budget) say(d cluster.Diagnostic) {
	if len(b.found) < maxDiagnostics {
		b.found[d] = true
	}
}

func (b *budget) diagnostics() []cluster.Diagnostic {
	return slices.SortedFunc(maps.Keys(b.found), func(x, y cluster.Diagnostic) int {
		return cmp.Or(x.Object.Compare(y.Object), cmp.Compare(x.Message, y.Message))
	})
}

// work returns the number of new rules and ranges by namespace.
func work(before, now memory) map[string]int {
	sets := map[string]bool{}
	for _, c := range before.chains {
		for _, s := range c.sets {
			sets[s.set.Name] = true
		}
	}
	spent := map[string]int{}
	for key, c := range now.chains {
		if c.Chain == nil || len(c.policies) == 0 || before.chains[key] == c {
			continue // refused, of no policy, or not new
		}
		namespace := c.policies[0].Policy.Key.Namespace
		spent[namespace] += len(c.Rules)
		for _, s := range c.sets {
			if !sets[s.set.Name] {
				sets[s.set.Name] = true
				spent[namespace] += len(s.set.Ranges)
			}
		}
	}
	return spent
}
