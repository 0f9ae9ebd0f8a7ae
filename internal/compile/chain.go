// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

// policyKey names the compiled rules of a policy.
type policyKey struct {
	policy    *policy.Resolved
	family    filter.Family
	direction filter.Direction
}

// chainKey names the chain of a list of policies before its content is known.
// Pods with the same policies are the common case; this finds their chain
// without compiling it again.
type chainKey struct {
	family    filter.Family
	direction filter.Direction
	policies  string
}

// chain is a chain of the program, what it was compiled from, and the sets that
// its rules refer to.
type chain struct {
	*filter.Chain
	policies []*policy.Resolved
	left     []*policy.Resolved // of them, those whose rules found no room
	sets     []*setRef
}

// chain returns the name of the chain that allows what the policies allow, in
// one family and direction. No policies means a chain that allows nothing.
func (b *builder) chain(f filter.Family, d filter.Direction, policies []*policy.Resolved) string {
	key := chainKey{family: f, direction: d, policies: policyList(policies)}
	if c := b.memory.chains[key]; c != nil {
		if b.budget.refused[c] {
			return b.chain(f, d, nil)
		}
		return c.Name
	}
	c := b.before.chains[key]
	if c == nil || !slices.Equal(c.policies, policies) {
		c = b.compile(f, d, policies)
	} else {
		b.keep(f, d, policies)
	}
	b.memory.chains[key] = c
	if len(policies) > 0 && !b.budget.take(c) {
		return b.chain(f, d, nil)
	}
	if b.chains[c.Name] == nil { // another list of policies may say the same
		b.chains[c.Name] = c.Chain
	}
	for _, s := range c.sets {
		b.sets[s.set.Name] = s
	}
	return c.Name
}

// policyList joins keys with a character that no name can contain.
func policyList(policies []*policy.Resolved) string {
	var s strings.Builder
	for _, p := range policies {
		s.WriteString(p.Policy.Key.Namespace + "\x00" + p.Policy.Key.Name + "\x00")
	}
	return s.String()
}

// keep keeps the compiled rules of policies for the next layout.
func (b *builder) keep(f filter.Family, d filter.Direction, policies []*policy.Resolved) {
	for _, p := range policies {
		b.policy(p, f, d)
	}
}

// policy compiles a policy, or finds it.
func (b *builder) policy(p *policy.Resolved, f filter.Family, d filter.Direction) *compiled {
	key := policyKey{p, f, d}
	c := b.memory.policies[key]
	if c == nil {
		c = b.before.policies[key]
	}
	if c == nil {
		c = compilePolicy(p, f, d)
	}
	b.memory.policies[key] = c
	return c
}

// bySize returns the policies, those with the fewest rules first, if their rules may
// not all have room.
func (b *builder) bySize(f filter.Family, d filter.Direction, policies []*policy.Resolved) []*policy.Resolved {
	rules := 0
	for _, p := range policies {
		rules += len(b.policy(p, f, d).rules)
	}
	if rules <= MaxChainRules {
		return policies
	}
	return slices.SortedFunc(slices.Values(policies), func(x, y *policy.Resolved) int {
		return cmp.Or(cmp.Compare(len(b.policy(x, f, d).rules), len(b.policy(y, f, d).rules)), x.Policy.Key.Compare(y.Policy.Key))
	})
}

// compile makes the chain of the union of what the policies allow: rules sorted,
// without duplicates, and only "any" if there is a rule that allows everything.
func (b *builder) compile(f filter.Family, d filter.Direction, policies []*policy.Resolved) *chain {
	made := &chain{Chain: &filter.Chain{Direction: d, Family: f}, policies: policies}
	var list []textRule
	sets := map[string]*setRef{}
	for _, p := range b.bySize(f, d, policies) {
		c := b.policy(p, f, d)
		if len(list)+len(c.rules) > MaxChainRules {
			made.left = append(made.left, p)
			continue
		}
		list = append(list, c.rules...)
		maps.Copy(sets, c.sets)
	}
	list = merge(list)
	texts := make([]string, 0, 2*len(list))
	used := map[string]bool{}
	for _, r := range list {
		made.Rules = append(made.Rules, r.Rule)
		texts = append(texts, r.text, r.Comment)
		used[r.PortSet], used[r.PeerSet], used[r.DestSet] = true, true, true
	}
	made.Name = fmt.Sprintf("%s%d-%s", d, f, digest(texts...))
	for name, s := range sets {
		if used[name] { // by no rule, if a more general one replaced it
			made.sets = append(made.sets, s)
		}
	}
	return made
}
