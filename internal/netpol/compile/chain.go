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

// chainKey identifies the chain of a list of policies before its content is known. Pods with the
// same policies are the common case; their chain is found by this key without compiling it again.
type chainKey struct {
	family    inet.Family
	direction program.Direction
	policies  [sha256.Size]byte
}

// chain is a chain of the program, its source, and the sets that its rules refer to.
type chain struct {
	*program.Chain // nil until it is compiled
	key            chainKey
	policies       []*policy.Resolved
	within         []*policy.Resolved // the policies whose rules have room
	left           []*policy.Resolved // the policies whose rules have no room
	size           int                // rules of the policies in within, before equal ones are joined
	sets           []*setRef
}

// chain returns the name of the chain that allows the traffic of the policies, in one family and
// direction. Without policies it is a chain that allows nothing.
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

// use adds a chain to the layout, compiled, if its namespace has room for it.
func (b *builder) use(list listKey, c *chain) string {
	b.memory.lists[list] = c
	if b.memory.chains[c.key] == nil {
		b.memory.chains[c.key] = c
		if len(c.policies) > 0 && !b.budget.take(c) {
			c.Chain, c.sets = nil, nil // it may have been in the layout before
		}
	}
	if b.budget.refused[c] {
		return b.chain(c.key.family, c.key.direction, nil)
	}
	if c.Chain == nil {
		b.compile(c)
	}
	if b.chains[c.Name] == nil { // another list of policies may have the same content
		b.chains[c.Name] = c.Chain
	}
	for _, s := range c.sets {
		b.sets[s.set.Name] = s
	}
	return c.Name
}

// listKey identifies the list of policies of a pod by its memory: parts of a model that did not
// change share it, so the chain is found without reading the list.
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

// withRules removes the policies that allow nothing in the direction: they only isolate, which
// every chain does. A pod may have thousands of them.
func withRules(d program.Direction, policies []*policy.Resolved) []*policy.Resolved {
	empty := func(p *policy.Resolved) bool {
		return d == program.Ingress && len(p.Ingress) == 0 || d == program.Egress && len(p.Egress) == 0
	}
	if !slices.ContainsFunc(policies, empty) {
		return policies
	}
	return slices.DeleteFunc(slices.Clone(policies), empty)
}

// policyList is a digest of the keys, joined with a character that no name can contain: a pod's
// list may be long, and is kept for each chain.
func policyList(policies []*policy.Resolved) (digest [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range policies {
		h.Write([]byte(p.Policy.Key.Namespace + "\x00" + p.Policy.Key.Name + "\x00"))
	}
	h.Sum(digest[:0])
	return digest
}

// policy returns the compiled policy, compiling it if necessary.
func (b *builder) policy(p *policy.Resolved, f inet.Family, d program.Direction) *compiled {
	key := policyKey{p, f, d}
	c := b.policies[key]
	if c == nil {
		c = compilePolicy(p, f, d)
		b.policies[key], b.fresh = c, true
	}
	return c
}

// plan decides, without compiling, which policies of a chain have room: if not all have, those with
// the fewest rules.
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

// compile builds the chain from the union of the rules of the policies in within: sorted, without
// duplicates, and only "any" if one rule allows everything.
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
		if used[name] { // false if a more general rule replaced all that used it
			c.sets = append(c.sets, s)
		}
	}
}
