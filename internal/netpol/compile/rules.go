// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// compiled holds the rules of one policy in one family and direction, with the sets that they refer
// to.
type compiled struct {
	rules []textRule
	sets  map[string]*setRef
}

// textRule is a rule with its text, by which rules are sorted and compared.
type textRule struct {
	program.Rule
	text string
}

func (c *compiled) add(r *setRef) {
	if c.sets[r.set.Name] == nil {
		c.sets[r.set.Name] = r
	}
}

// compilePolicy compiles the rules of a policy.
func compilePolicy(p *policy.Resolved, f inet.Family, d program.Direction) *compiled {
	list := p.Ingress
	if d == program.Egress {
		list = p.Egress
	}
	c := &compiled{sets: map[string]*setRef{}}
	for i := range list {
		from := []program.Origin{{Policy: p.Policy.Key.String(), Index: list[i].Index}}
		c.rule(&list[i], f, d, from)
	}
	return c
}

// rule compiles a rule of the API.
func (c *compiled) rule(r *policy.Rule, f inet.Family, d program.Direction, from []program.Origin) {
	comment := fmt.Sprintf("%s %s[%d]", from[0].Policy, d, from[0].Index)
	outside := c.blockPeers(f, d, r.Blocks)
	if r.AnyPeer {
		outside = anyPeer()
	}
	peers := append(outside, c.podPeers(f, r.Pods)...)
	named, ports := c.namedPorts(f, r.Named), everyPort()
	if !r.AnyPort {
		ports = c.portConditions(r.Ports, len(peers))
	}
	c.pairs(peers, ports, comment, from)
	if d == program.Egress {
		peers = slices.DeleteFunc(slices.Clone(outside), placed) // for pods the named port is the whole condition
	}
	c.pairs(peers, named, comment, from)
	c.pairs(anyPeer(), c.namedPorts(f, r.Direct), comment, from)
}

// placed reports whether the condition is for link-local addresses. No pod with such an address
// declares a named port.
func placed(r program.Rule) bool { return r.Place != program.Anywhere }

// pairs adds a rule for each pair of a peer and a port.
func (c *compiled) pairs(peers, ports []program.Rule, comment string, from []program.Origin) {
	for _, peer := range peers {
		for _, port := range ports {
			r := peer
			r.Protocol, r.Ports, r.PortSet, r.DestSet = port.Protocol, port.Ports, port.PortSet, port.DestSet
			r.Comment, r.Origins = comment, from
			c.rules = append(c.rules, textRule{r, r.String()})
		}
	}
}

// originsOf returns the origins of all rules with a text.
func originsOf(list []textRule, text string) (all []program.Origin) {
	for _, r := range list {
		if r.text == text {
			all = append(all, r.Origins...)
		}
	}
	return all
}

// merge sorts rules and joins equal ones, with the comments of all. If one allows everything it is
// the only one. Rules for link-local addresses come last: few packets need them.
func merge(list []textRule) []textRule {
	slices.SortStableFunc(list, func(a, b textRule) int {
		return cmp.Or(cmp.Compare(min(a.Place, 1), min(b.Place, 1)), strings.Compare(a.text, b.text))
	})
	var merged []textRule
	for _, r := range list {
		if r.text == "any" {
			r.Origins = originsOf(list, r.text)
			return []textRule{r} // the others add nothing to it
		}
		if n := len(merged); n > 0 && merged[n-1].text == r.text {
			merged[n-1].Comment = joinComments(merged[n-1].Comment, r.Comment)
			if last := merged[n-1].Origins; last[len(last)-1] != r.Origins[0] {
				merged[n-1].Origins = append(last, r.Origins...)
			}
			continue
		}
		r.Origins = slices.Clip(r.Origins) // shared with other chains: to append copies it
		merged = append(merged, r)
	}
	return merged
}

// enough is the length above which a comment is truncated anyway. Above it nothing is appended: for
// many policies with one rule the cost would be the square of their number.
const enough = 128

func joinComments(a, b string) string {
	if len(a) >= enough || slices.Contains(strings.Split(a, ", "), b) {
		return a
	}
	return a + ", " + b
}
