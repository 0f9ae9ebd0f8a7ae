// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// policyKey names the compiled rules of a policy.
type policyKey struct {
	policy    *policy.Resolved
	family    inet.Family
	direction program.Direction
}

// chainKey names the chain of a list of policies before its content is known.
// Pods with the same policies are the common case; this finds their chain
// without compiling it again.
type chainKey struct {
	family    inet.Family
	direction program.Direction
	policies  [sha256.Size]byte
}

// chain is a chain of the program, what it was compiled from, and the sets that
// its rules refer to.
type chain struct {
	*program.Chain // nil until it is compiled
	key            chainKey
	policies       []*policy.Resolved
	within         []*policy.Resolved // of them, those whose rules have room
	left           []*policy.Resolved // and those whose rules have none
	size           int                // rules of those within, before equal ones are joined
	sets           []*setRef
}

// chain returns the name of the chain that allows what the policies allow, in
// one family and direction. No policies means a chain that allows nothing.
func (b *builder) chain(f inet.Family, d program.Direction, policies []*policy.Resolved) string {
	list := listOf(f, d, policies)
	if c := b.before.lists[list]; c != nil && len(policies) > 0 {
		return b.use(list, c)
	}
	policies = withRules(d, policies)
	key := chainKey{family: f, direction: d, policies: policyList(policies)}
	c := b.memory.chains[key]
	if c == nil {
		c = b.before.chains[key]
	}
	if c == nil || !slices.Equal(c.policies, policies) {
		c = b.plan(key, policies)
	}
	return b.use(list, c)
}

// use puts a chain into the layout, compiled, if its namespace has room for it.
func (b *builder) use(list listKey, c *chain) string {
	b.memory.lists[list] = c
	if b.memory.chains[c.key] == nil {
		b.memory.chains[c.key] = c
		if len(c.policies) > 0 && !b.budget.take(c) {
			c.Chain, c.sets = nil, nil // it was in the layout before, maybe
		}
	}
	if b.budget.refused[c] {
		return b.chain(c.key.family, c.key.direction, nil)
	}
	if c.Chain == nil {
		b.compile(c)
	}
	if b.chains[c.Name] == nil { // another list of policies may say the same
		b.chains[c.Name] = c.Chain
	}
	for _, s := range c.sets {
		b.sets[s.set.Name] = s
	}
	return c.Name
}

// listKey names the very list of policies of a pod: parts of a model that did not
// change share it, so that its chain is found without looking at the list.
type listKey struct {
	family    inet.Family
	direction program.Direction
	first     **policy.Resolved
	n         int
}

func listOf(f inet.Family, d program.Direction, policies []*policy.Resolved) listKey {
	if len(policies) == 0 {
		return listKey{family: f, direction: d}
	}
	return listKey{f, d, &policies[0], len(policies)}
}

// withRules leaves out the policies that allow nothing in the direction: they
// isolate, which every chain does. A pod may have thousands of them.
func withRules(d program.Direction, policies []*policy.Resolved) []*policy.Resolved {
	empty := func(p *policy.Resolved) bool {
		return d == program.Ingress && len(p.Ingress) == 0 || d == program.Egress && len(p.Egress) == 0
	}
	if !slices.ContainsFunc(policies, empty) {
		return policies
	}
	return slices.DeleteFunc(slices.Clone(policies), empty)
}

// policyList is a digest of the keys, joined with a character that no name can
// contain: the list of a pod may be long, and is kept for each chain.
func policyList(policies []*policy.Resolved) (digest [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range policies {
		h.Write([]byte(p.Policy.Key.Namespace + "\x00" + p.Policy.Key.Name + "\x00"))
	}
	h.Sum(digest[:0])
	return digest
}

// policy compiles a policy, or finds it.
func (b *builder) policy(p *policy.Resolved, f inet.Family, d program.Direction) *compiled {
	key := policyKey{p, f, d}
	c := b.policies[key]
	if c == nil {
		c = compilePolicy(p, f, d)
		b.policies[key], b.fresh = c, true
	}
	return c
}

// plan says which policies of a chain have room, without compiling it: those with
// the fewest rules come first if not all have.
func (b *builder) plan(key chainKey, policies []*policy.Resolved) *chain {
	c := &chain{key: key, policies: policies, within: policies}
	size := func(p *policy.Resolved) int { return len(b.policy(p, key.family, key.direction).rules) }
	for _, p := range policies {
		c.size += size(p)
	}
	if c.size <= MaxChainRules {
		return c
	}
	c.size, c.within = 0, nil
	bySize := slices.SortedFunc(slices.Values(policies), func(x, y *policy.Resolved) int {
		return cmp.Or(cmp.Compare(size(x), size(y)), x.Policy.Key.Compare(y.Policy.Key))
	})
	for _, p := range bySize {
		if n := size(p); c.size+n <= MaxChainRules {
			c.size, c.within = c.size+n, append(c.within, p)
		} else {
			c.left = append(c.left, p)
		}
	}
	return c
}

// compile makes the chain of the union of what the policies within allow: rules
// sorted, without duplicates, and only "any" if there is a rule that allows
// everything.
func (b *builder) compile(c *chain) {
	f, d := c.key.family, c.key.direction
	var list []textRule
	sets := map[string]*setRef{}
	for _, p := range c.within {
		part := b.policy(p, f, d)
		list = append(list, part.rules...)
		maps.Copy(sets, part.sets)
	}
	list = merge(list)
	c.Chain = &program.Chain{Direction: d, Family: f}
	texts := make([]string, 0, 2*len(list))
	used := map[string]bool{}
	for _, r := range list {
		c.Rules = append(c.Rules, r.Rule)
		texts = append(texts, r.text, r.Comment)
		used[r.PortSet], used[r.PeerSet], used[r.DestSet] = true, true, true
	}
	c.Name = fmt.Sprintf("%s%d-%s", d, f, digest(texts...))
	for name, s := range sets {
		if used[name] { // by no rule, if a more general one replaced it
			c.sets = append(c.sets, s)
		}
	}
}
