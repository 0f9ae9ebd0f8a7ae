// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// maxWalk is the number of rules for single ports that a chain may walk one
// after another. A rule costs some 20 ns on a connection's first packet; above
// this a dispatch on protocol and port is cheaper, and flat.
const maxWalk = 16

// look is what chains of pods look like beyond the program; see program.Node.
type look struct {
	closed   bool // unknown pods are closed
	recorded bool // denied packets are recorded
	audit    bool // the chain drops nothing: it counts, and records, what it would drop
}

func lookOf(n program.Node) look { return look{closed: !n.OpenUnknown, recorded: n.DeniedGroup != 0} }

// name is the name of a chain of the program that looks so.
func (l look) name(chain string) string {
	if l.audit {
		return auditPrefix + chain
	}
	return chain
}

// renderChain renders the chain of some pods and direction. A long chain is
// split by protocol and port: rules for other ports come first, then a verdict
// map picks the rules of the one port. The order does not change the verdict,
// since rules only allow.
func renderChain(c *program.Chain, l look) (chains []*nft.Chain, dispatch *nft.Set) {
	name := l.name(c.Name)
	main := &nft.Chain{Name: name}
	single := map[nft.Key][]program.Rule{}
	count := 0
	for _, r := range c.Rules {
		if key, ok := singlePort(r); ok {
			single[key] = append(single[key], r)
			count++
		}
	}
	for _, r := range c.Rules {
		if _, ok := singlePort(r); !ok || count <= maxWalk {
			main.Rules = append(main.Rules, renderRule(c, r, l.closed))
		}
	}
	chains = []*nft.Chain{main}
	if count > maxWalk {
		rest := &nft.Chain{Name: name + "-rest"}
		finish(rest, c, l)
		chains = append(chains, rest)
		dispatch = &nft.Set{Name: "ports-" + name, Key: nft.ProtocolPort, Map: true, Comment: "rules by port"}
		for key, rules := range single {
			sub := portChain(c, key, rules, l)
			sub.Add("", nft.GoTo(rest.Name))
			chains = append(chains, sub)
			dispatch.Entries = append(dispatch.Entries, nft.Entry{Key: key, Verdict: nft.GoTo(sub.Name)})
		}
		slices.SortFunc(dispatch.Entries, func(a, b nft.Entry) int { return a.Key.Compare(b.Key.Element) })
		slices.SortFunc(chains, func(a, b *nft.Chain) int { return cmp.Compare(a.Name, b.Name) })
		main.Add("", nft.Lookup{Field: nft.ProtocolAndPort, Set: dispatch.Name, Map: true})
	}
	finish(main, c, l)
	return chains, dispatch
}

// singlePort reports whether the rule can be found by its protocol and port.
func singlePort(r program.Rule) (nft.Key, bool) {
	if r.Ports.Any() || r.Ports.First != r.Ports.Last {
		return nft.Key{}, false
	}
	return nft.Key{Element: inet.Element{Protocol: r.Protocol, Port: r.Ports.First}}, true
}

// portChain renders the rules for one port.
func portChain(c *program.Chain, key nft.Key, rules []program.Rule, l look) *nft.Chain {
	sub := &nft.Chain{Name: fmt.Sprintf("%s-%s-%d", l.name(c.Name), key.Protocol, key.Port)}
	for _, r := range rules {
		r.Ports, r.Protocol = inet.PortRange{}, inet.AnyProtocol // known by the dispatch
		sub.Rules = append(sub.Rules, renderRule(c, r, l.closed))
	}
	return sub
}

// finish ends the chain of some pods: a pod always reaches itself, and the node
// its own pods; the rest is dropped. That comes last, since most packets are
// allowed by a rule and need not be asked. A packet with the node's address that
// came in by an interface is spoofed; IPv6 would forward it. No egress chain judges
// the node's address, even if a pod claims it: otherwise the node could lose the
// way to its API server. A spoofed one was dropped before (antispoof).
func finish(c *nft.Chain, of *program.Chain, l look) {
	c.Add("hairpin", nft.Lookup{Field: nft.SourceDestination, Family: of.Family, Set: perFamily(setHairpin, of.Family)},
		nft.Verdict{Kind: nft.Accept})
	if of.Direction == program.Egress {
		c.Add("from the node itself", nft.MatchLocalSource{}, nft.Verdict{Kind: nft.Return})
	} else {
		c.Add("from the node to its own pod", nft.MatchNoInput{}, nft.MatchLocalSource{}, nft.Verdict{Kind: nft.Accept})
	}
	c.Rules = append(c.Rules, l.end(of.Direction))
}

// renderRule renders the conditions, port before peer since a compare is
// cheaper than a lookup. An egress rule that matches goes back to the base
// chain, which goes on to the ingress of the destination.
func renderRule(c *program.Chain, r program.Rule, closed bool) nft.Rule {
	var s []nft.Statement
	switch {
	case !r.Ports.Any():
		s = append(s, nft.MatchPort{Protocol: r.Protocol, Ports: r.Ports})
	case r.PortSet != "":
		s = append(s, nft.Lookup{Field: nft.TransportPort, Protocol: r.Protocol, Set: r.PortSet})
	case r.Protocol != inet.AnyProtocol && r.DestSet == "":
		s = append(s, nft.MatchProtocol{Protocol: r.Protocol})
	}
	if r.DestSet != "" {
		s = append(s, nft.Lookup{Field: nft.DestinationPort, Family: c.Family, Protocol: r.Protocol, Set: r.DestSet})
	}
	peer := nft.Source
	if c.Direction == program.Egress {
		peer = nft.Destination
	}
	if !r.Block.Any() {
		s = append(s, nft.MatchPrefix{Field: peer, Prefix: r.Block.CIDR})
		for _, e := range r.Block.Except {
			s = append(s, nft.MatchPrefix{Field: peer, Prefix: e, Negate: true})
		}
	}
	if r.PeerSet != "" {
		s = append(s, nft.Lookup{Field: peer, Family: c.Family, Set: r.PeerSet})
	}
	s = append(s, renderPlace(c.Direction, r.Place, closed)...)
	verdict := nft.Verdict{Kind: nft.Accept}
	if c.Direction == program.Egress {
		verdict.Kind = nft.Return
	}
	return nft.Rule{Statements: append(s, verdict), Comment: r.Comment}
}

// renderPlace renders where the peer must be. A packet that a bridge forwards by
// itself has no input interface, and its other end is on the same link. What comes
// to the node has no output interface; neither has a broadcast before routing, which
// is for others too.
func renderPlace(d program.Direction, p program.Place, closed bool) []nft.Statement {
	field, known := nft.InputInterface, nft.Statement(nft.MatchNoInput{Negate: true})
	if d == program.Egress {
		field, known = nft.OutputInterface, nft.MatchNoOutput{Negate: true}
	}
	switch {
	case p == program.OnNode:
		return []nft.Statement{nft.MatchNoOutput{}, nft.MatchLocalDestination{}}
	case p == program.Elsewhere && closed:
		return []nft.Statement{nft.Lookup{Field: field, Set: setNonPodLinks}}
	case p == program.Elsewhere:
		return []nft.Statement{known, nft.Lookup{Field: field, Set: setPodLinks, Negate: true}}
	}
	return nil
}
