// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// maxLiterals is the number of blocks that a rule may list as literals. Above it one interval set
// is cheaper: a literal costs a compare, the lookup about 200 ns on a connection's first packet.
const maxLiterals = 8

// anyPeer returns the one peer condition of a rule for every peer.
func anyPeer() []program.Rule { return []program.Rule{{}} }

// blockPeers returns the conditions for the blocks of a rule in a family.
func (c *compiled) blockPeers(f inet.Family, d program.Direction, blocks []*cluster.IPBlock) []program.Rule {
	rest, apart := splitLinkLocal(f, blocks)
	return append(c.anyOf(f, rest), at(places(f, d), c.anyOf(f, apart))...)
}

// anyOf returns the conditions for blocks of a family: one for each, or a set.
func (c *compiled) anyOf(f inet.Family, blocks []*cluster.IPBlock) (list []program.Rule) {
	literals := 0
	for _, b := range blocks {
		literals += 1 + len(b.Except)
	}
	if literals > maxLiterals {
		return c.blockSet(f, blocks)
	}
	for _, from := range blocks {
		if b, ok := block(from); ok {
			list = append(list, program.Rule{Block: b})
		}
	}
	return list
}

// block removes except ranges outside the block. ok is false if the except ranges leave nothing.
func block(from *cluster.IPBlock) (program.Block, bool) {
	b := program.Block{CIDR: from.CIDR.Masked()}
	for _, e := range mergePrefixes(from.Except) {
		switch {
		case e.Bits() <= b.CIDR.Bits() && e.Overlaps(b.CIDR):
			return program.Block{}, false
		case e.Overlaps(b.CIDR):
			b.Except = append(b.Except, e)
		}
	}
	return b, true
}

// blockSet returns the condition for all blocks of a family as one set; none if the except ranges
// leave nothing.
func (c *compiled) blockSet(f inet.Family, blocks []*cluster.IPBlock) []program.Rule {
	var ranges []inet.Range
	for _, b := range blocks {
		ranges = append(ranges, blockRanges(b)...)
	}
	if ranges = mergeRanges(ranges, nextAddr); len(ranges) == 0 {
		return nil
	}
	if only, ok := ranges[0].Prefix(); ok && len(ranges) == 1 {
		return []program.Rule{{Block: program.Block{CIDR: only}}}
	}
	// Like the name, the comment must depend on the content only: rules that write the same
	// addresses differently share the set.
	s := program.Set{Kind: inet.AddrRanges, Family: f, Ranges: ranges,
		Comment: fmt.Sprintf("ipBlock peers of a rule, %d ranges", len(ranges))}
	s.Name = fmt.Sprintf("blocks%d-%s", f, digest(rangeTexts(s)...))
	c.add(&setRef{set: s})
	return []program.Rule{{PeerSet: s.Name}}
}

// rangeTexts returns the texts from which the name of a set of ranges is derived.
func rangeTexts(s program.Set) []string {
	list := make([]string, 0, 2*len(s.Ranges))
	for _, r := range s.Ranges {
		list = append(list, s.Kind.Format(r.First), s.Kind.Format(r.Last))
	}
	return list
}

// podPeers returns the conditions for sets of pods.
func (c *compiled) podPeers(f inet.Family, specs []*policy.SetSpec) []program.Rule {
	var list []program.Rule
	for _, s := range specs {
		list = append(list, program.Rule{PeerSet: c.podSet(f, s, inet.Addrs)})
	}
	return list
}

// podSet returns the name of the set of a spec in one family.
func (c *compiled) podSet(f inet.Family, spec *policy.SetSpec, kind inet.SetKind) string {
	what := "pods"
	if kind == inet.AddrPorts {
		what = "ports"
	}
	name := fmt.Sprintf("%s%d-%s", what, f, spec.Key().Name())
	c.add(&setRef{key: spec.Key(), spec: spec, set: program.Set{Name: name, Kind: kind, Family: f,
		Comment: spec.String()}})
	return name
}
