// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/netpol/program"
)

// maxWalk is the number of rules for single ports that a chain may walk one
// after another. A rule costs some 20 ns on a connection's first packet; above
// this a dispatch on protocol and port is cheaper, and flat.
const maxWalk = 16

// renderChain renders the chain of some pods and direction. A long chain is
// split by protocol and port: rules for other ports come first, then a verdict
// map picks the rules of the one port. The order does not change the verdict,
// since rules only allow.
func renderChain(c *program.Chain) (chains []*Chain, dispatch *Set) {
	main := &Chain{Name: c.Name}
	single := map[Key][]program.Rule{}
	count := 0
	for _, r := range c.Rules {
		if key, ok := singlePort(r); ok {
			single[key] = append(single[key], r)
			count++
		}
	}
	for _, r := range c.Rules {
		if _, ok := singlePort(r); !ok || count <= maxWalk {
			main.Rules = append(main.Rules, renderRule(c, r))
		}
	}
	chains = []*Chain{main}
	if count > maxWalk {
		rest := &Chain{Name: c.Name + "-rest"}
		rest.finish(c)
		chains = append(chains, rest)
		dispatch = &Set{Name: "ports-" + c.Name, Key: ProtocolPort, Map: true, Comment: "rules by port"}
		for key, rules := range single {
			sub := portChain(c, key, rules)
			sub.add("", Verdict{Goto, rest.Name})
			chains = append(chains, sub)
			dispatch.Entries = append(dispatch.Entries, Entry{Key: key, Verdict: Verdict{Goto, sub.Name}})
		}
		slices.SortFunc(dispatch.Entries, func(a, b Entry) int { return a.Key.Compare(b.Key.Element) })
		slices.SortFunc(chains, func(a, b *Chain) int { return cmp.Compare(a.Name, b.Name) })
		main.add("", Lookup{Field: ProtocolAndPort, Set: dispatch.Name, Map: true})
	}
	main.finish(c)
	return chains, dispatch
}

// singlePort reports whether the rule can be found by its protocol and port.
func singlePort(r program.Rule) (Key, bool) {
	if r.Ports.Any() || r.Ports.First != r.Ports.Last {
		return Key{}, false
	}
	return Key{Element: program.Element{Protocol: r.Protocol, Port: r.Ports.First}}, true
}

// portChain renders the rules for one port.
func portChain(c *program.Chain, key Key, rules []program.Rule) *Chain {
	sub := &Chain{Name: fmt.Sprintf("%s-%s-%d", c.Name, key.Protocol, key.Port)}
	for _, r := range rules {
		r.Ports, r.Protocol = program.PortRange{}, program.AnyProtocol // known by the dispatch
		sub.Rules = append(sub.Rules, renderRule(c, r))
	}
	return sub
}

// finish ends the chain of some pods: a pod always reaches itself, and the node
// its own pods; the rest is dropped. That comes last, since most packets are
// allowed by a rule and need not be asked. A packet with the node's address that
// came in by an interface is forged; IPv6 would forward it. No egress chain judges
// the node's address, even if a pod claims it: otherwise the node could lose the
// way to its API server. Forged, it was dropped before (known-source).
func (c *Chain) finish(of *program.Chain) {
	c.add("a pod reaches itself", Lookup{Field: SourceDestination, Family: of.Family, Set: perFamily("self", of.Family)}, Verdict{Kind: Accept})
	if of.Direction == program.Egress {
		c.add("the node is no pod", MatchLocalSource{}, Verdict{Kind: Return})
		c.Rules = append(c.Rules, dropped(CounterEgress, ""))
		return
	}
	c.add("the node to its own pod", MatchNoInput{}, MatchLocalSource{}, Verdict{Kind: Accept})
	c.Rules = append(c.Rules, dropped(CounterIngress, ""))
}

// renderRule renders the conditions, port before peer since a compare is
// cheaper than a lookup. An egress rule that matches goes back to the base
// chain, which goes on to the ingress of the destination.
func renderRule(c *program.Chain, r program.Rule) Rule {
	var s []Statement
	switch {
	case !r.Ports.Any():
		s = append(s, MatchPort{r.Protocol, r.Ports})
	case r.PortSet != "":
		s = append(s, Lookup{Field: TransportPort, Protocol: r.Protocol, Set: r.PortSet})
	case r.Protocol != program.AnyProtocol && r.DestSet == "":
		s = append(s, MatchProtocol{r.Protocol})
	}
	if r.DestSet != "" {
		s = append(s, Lookup{Field: DestinationPort, Family: c.Family, Protocol: r.Protocol, Set: r.DestSet})
	}
	peer := Source
	if c.Direction == program.Egress {
		peer = Destination
	}
	if !r.Block.Any() {
		s = append(s, MatchPrefix{Field: peer, Prefix: r.Block.CIDR})
		for _, e := range r.Block.Except {
			s = append(s, MatchPrefix{Field: peer, Prefix: e, Negate: true})
		}
	}
	if r.PeerSet != "" {
		s = append(s, Lookup{Field: peer, Family: c.Family, Set: r.PeerSet})
	}
	verdict := Verdict{Kind: Accept}
	if c.Direction == program.Egress {
		verdict.Kind = Return
	}
	return Rule{Statements: append(s, verdict), Comment: r.Comment}
}
