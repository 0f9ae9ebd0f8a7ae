// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// Verdict is the fate of a packet. The zero value is Drop, so that a forgotten verdict never lets
// anything through.
type Verdict uint8

// The verdicts.
const (
	Drop Verdict = iota
	Accept
)

// String returns "accept" or "drop".
func (v Verdict) String() string {
	if v == Accept {
		return "accept"
	}
	return "drop"
}

// Eval returns the verdict of the node that runs the program. It is the reference for every
// backend.
func Eval(p *Program, f Flow) Verdict {
	if f.Src == f.Dst && p.pod(f.Src) != nil {
		return Accept // a pod to itself
	}
	if src := p.pod(f.Src); !f.FromNode && src != nil && src.Egress != "" && !p.allows(src.Egress, f) {
		return Drop
	}
	if f.ToNode || f.FromNode {
		return Accept // ingress: the node to its own pods, or no pod at all
	}
	if dst := p.pod(f.Dst); dst != nil && dst.Ingress != "" && !p.allows(dst.Ingress, f) {
		return Drop
	}
	return Accept
}

func (p *Program) pod(a netip.Addr) *Pod {
	i, found := slices.BinarySearchFunc(p.Pods, a, func(e Pod, a netip.Addr) int { return e.Addr.Compare(a) })
	if !found {
		return nil
	}
	return &p.Pods[i]
}

// Chain returns the chain of that name, or nil.
func (p *Program) Chain(name string) *Chain {
	for _, c := range p.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Set returns the set of that name, or nil.
func (p *Program) Set(name string) *Set {
	for _, s := range p.Sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (p *Program) allows(chain string, f Flow) bool {
	c := p.Chain(chain)
	return c != nil && slices.ContainsFunc(c.Rules, func(r Rule) bool { return p.matches(c, r, f) })
}

func (p *Program) matches(c *Chain, r Rule, f Flow) bool {
	return p.matchesPort(r, f) && p.matchesPeer(c, r, f)
}

// matchesPort reports whether the flow meets a rule's conditions on protocol and port.
func (p *Program) matchesPort(r Rule, f Flow) bool {
	return (r.Protocol == inet.AnyProtocol || r.Protocol == f.Protocol) &&
		r.Ports.Contains(f.DstPort) &&
		p.inSet(r.PortSet, netip.Addr{}, f) &&
		p.inSet(r.DestSet, f.Dst, f)
}

// matchesPeer reports whether the flow meets a rule's conditions on the peer.
func (p *Program) matchesPeer(c *Chain, r Rule, f Flow) bool {
	peer, elsewhere := f.Src, f.SrcElsewhere
	if c.Direction == Egress {
		peer, elsewhere = f.Dst, f.DstElsewhere
	}
	return r.Block.Contains(peer) &&
		(r.Place != Elsewhere || elsewhere) &&
		(r.Place != OnNode || f.ToNode) &&
		p.inSet(r.PeerSet, peer, f)
}

// inSet reports whether the packet is in the named set. An empty name is no condition; a name
// without a set matches nothing.
func (p *Program) inSet(name string, a netip.Addr, f Flow) bool {
	if name == "" {
		return true
	}
	s := p.Set(name)
	return s != nil && s.contains(a, f.DstPort)
}
