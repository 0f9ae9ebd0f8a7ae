// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"
	"slices"
)

// Origin names the rule of the API that a rule was compiled from.
type Origin struct {
	// Policy is namespace/name.
	Policy string
	// Index is the position in the list of the chain's direction.
	Index int
}

// Trace says how a program comes to its verdict about a flow.
type Trace struct {
	Verdict Verdict
	// Self is true for a pod that talks to itself: no chain is asked.
	Self bool
	// Egress is the source's side, Ingress the destination's. The ingress of a flow
	// that egress drops is traced too: a user has to mend both.
	Egress, Ingress Side
}

// Side is one direction of a trace.
type Side struct {
	// Chain is the chain of the pod; nil if it is not isolated, not a pod of this
	// node, or not judged (the node to its own pods).
	Chain *Chain
	// Allows is the first rule that allows the flow; nil if none does.
	Allows *Rule
	// Misses are the rules of the chain, if none allows the flow.
	Misses []Miss
}

// Drops reports whether this side drops the flow.
func (s Side) Drops() bool { return s.Chain != nil && s.Allows == nil }

// Miss is a rule that does not allow a flow: at least one half is not met.
type Miss struct {
	Rule *Rule
	// Peer and Port say which half of the rule the flow meets.
	Peer, Port bool
}

// Explain returns the verdict of Eval and how it came about.
func Explain(p *Program, f Flow) Trace {
	src, dst := p.pod(f.Src), p.pod(f.Dst)
	if f.Src == f.Dst && src != nil {
		return Trace{Verdict: Accept, Self: true}
	}
	var t Trace
	if src != nil && !f.FromNode {
		t.Egress = p.side(src.Egress, f)
	}
	if dst != nil && !f.FromNode && !f.ToNode {
		t.Ingress = p.side(dst.Ingress, f)
	}
	if !t.Egress.Drops() && !t.Ingress.Drops() {
		t.Verdict = Accept
	}
	return t
}

// ExplainSide returns one side of the trace, or, with audit, what it would be if policies in audit mode
// were enforced. The caller knows that the direction judges the flow.
func ExplainSide(p *Program, d Direction, audit bool, f Flow) Side {
	return p.side(p.chainOf(d, audit, f), f)
}

// RulesOf is how many rules the chain has that ExplainSide looks at.
func (p *Program) RulesOf(d Direction, audit bool, f Flow) int {
	c := p.Chain(p.chainOf(d, audit, f))
	if c == nil {
		return 0
	}
	return len(c.Rules)
}

// WouldDrop reports whether policies in audit mode would drop the flow in a direction in which no policy
// judges it. A pod to itself and the node are no subject of policies, as in Eval.
func WouldDrop(p *Program, d Direction, f Flow) bool {
	if f.FromNode || f.Src == f.Dst && p.pod(f.Src) != nil || d == Ingress && f.ToNode {
		return false
	}
	return ExplainSide(p, d, true, f).Drops()
}

// chainOf names the chain that judges a flow in a direction, or audits it; empty for none.
func (p *Program) chainOf(d Direction, audit bool, f Flow) string {
	addr := f.Dst
	if d == Egress {
		addr = f.Src
	}
	pod := p.pod(addr)
	switch {
	case pod == nil:
		return ""
	case d == Egress && audit:
		return pod.AuditEgress
	case d == Egress:
		return pod.Egress
	case audit:
		return pod.AuditIngress
	}
	return pod.Ingress
}

// side traces a chain; a name without a chain drops everything, as in Eval.
func (p *Program) side(name string, f Flow) Side {
	if name == "" {
		return Side{}
	}
	c := p.Chain(name)
	if c == nil {
		return Side{Chain: &Chain{Name: name}}
	}
	if i := slices.IndexFunc(c.Rules, func(r Rule) bool { return p.matches(c, r, f) }); i >= 0 {
		return Side{Chain: c, Allows: &c.Rules[i]}
	}
	s := Side{Chain: c}
	for i := range c.Rules {
		s.Misses = append(s.Misses, p.miss(c, &c.Rules[i], f))
	}
	return s
}

func (p *Program) miss(c *Chain, r *Rule, f Flow) Miss {
	m := Miss{Rule: r, Peer: p.matchesPeer(c, *r, f), Port: p.matchesPort(*r, f)}
	// An egress rule for a named port of pods has one set for both halves.
	if c.Direction == Egress && r.DestSet != "" && r.Block.Any() && r.PeerSet == "" {
		m.Peer = p.Set(r.DestSet).hasAddress(f.Dst)
		m.Port = m.Port && m.Peer
	}
	return m
}

// hasAddress reports whether a set of addresses and ports has the address with any port.
func (s *Set) hasAddress(a netip.Addr) bool {
	if s == nil {
		return false
	}
	for e := range s.Elements.All() {
		if e.Addr == a {
			return true
		}
	}
	return false
}
