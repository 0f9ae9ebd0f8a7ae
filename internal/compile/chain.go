// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

// memoKey names the chain of a list of policies before its content is known.
// Pods with the same policies are the common case; this finds their chain
// without compiling it again.
type memoKey struct {
	family    filter.Family
	direction filter.Direction
	policies  string
}

// chain returns the name of the chain that allows what the policies allow, in
// one family and direction. No policies means a chain that allows nothing.
func (b *builder) chain(f filter.Family, d filter.Direction, policies []*policy.Resolved) string {
	key := memoKey{family: f, direction: d, policies: policyList(policies)}
	if name, done := b.memo[key]; done {
		return name
	}
	c := &filter.Chain{Direction: d, Family: f, Rules: b.rules(f, d, policies)}
	c.Name = fmt.Sprintf("%s%d-%s", d, f, digest(ruleText(c.Rules)...))
	b.chains[c.Name] = c
	b.memo[key] = c.Name
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

// ruleText is what the name of a chain is derived from.
func ruleText(rules []filter.Rule) []string {
	var list []string
	for _, r := range rules {
		list = append(list, r.String(), r.Comment)
	}
	return list
}

// rules compiles the union of what the policies allow: sorted, without
// duplicates, and only "any" if there is a rule that allows everything.
func (b *builder) rules(f filter.Family, d filter.Direction, policies []*policy.Resolved) []filter.Rule {
	var list []filter.Rule
	for _, p := range policies {
		clauses := p.Ingress
		if d == filter.Egress {
			clauses = p.Egress
		}
		for _, group := range groupByRule(clauses) {
			comment := fmt.Sprintf("%s %s[%d]", p.Policy.Key, d, group[0].Rule)
			list = append(list, b.compileRule(f, group, comment)...)
		}
	}
	return merge(list)
}

// groupByRule splits clauses into those of each rule of the API object.
func groupByRule(list []policy.Clause) [][]policy.Clause {
	var groups [][]policy.Clause
	for i, c := range list {
		if i == 0 || c.Rule != list[i-1].Rule {
			groups = append(groups, nil)
		}
		last := &groups[len(groups)-1]
		*last = append(*last, c)
	}
	return groups
}

// compileRule compiles the clauses of one rule of the API for one family.
// Clauses that differ only in the port, or only in the block, are compiled
// together, so that long lists become sets.
func (b *builder) compileRule(f filter.Family, clauses []policy.Clause, comment string) []filter.Rule {
	var list []filter.Rule
	for _, peer := range b.groupPeers(f, clauses) {
		for _, port := range b.groupPorts(peer.ports) {
			r := peer.rule
			r.Protocol, r.Ports, r.PortSet = port.Protocol, port.Ports, port.PortSet
			r.Comment = comment
			list = append(list, r)
		}
	}
	return list
}

// merge sorts rules and joins equal ones, with the comments of all.
func merge(list []filter.Rule) []filter.Rule {
	slices.SortStableFunc(list, func(a, b filter.Rule) int { return cmp.Compare(a.String(), b.String()) })
	var merged []filter.Rule
	for _, r := range list {
		if r.String() == "any" {
			return []filter.Rule{r} // the others cannot add to it
		}
		if n := len(merged); n > 0 && merged[n-1].String() == r.String() {
			merged[n-1].Comment = joinComments(merged[n-1].Comment, r.Comment)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// enough is where a comment is cut anyway. Beyond it nothing is joined: many
// policies with one rule would cost the square of their number.
const enough = 128

func joinComments(a, b string) string {
	if len(a) >= enough || slices.Contains(strings.Split(a, ", "), b) {
		return a
	}
	return a + ", " + b
}

// filterProtocol returns the backend-neutral protocol number.
func filterProtocol(p cluster.Protocol) filter.Protocol { return filter.Protocol(p) }
