// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

// maxLiterals is the number of blocks that a rule may spell out. Above it one
// interval set is cheaper than the walk: a literal costs a compare, the lookup
// about 200 ns on a connection's first packet.
const maxLiterals = 8

// anybody reports the one peer condition of a rule for every peer.
func anybody() []filter.Rule { return []filter.Rule{{}} }

// blockPeers returns the conditions for the blocks of a rule in a family.
func (c *compiled) blockPeers(f filter.Family, blocks []*cluster.IPBlock) []filter.Rule {
	literals := 0
	for _, b := range blocks {
		if filter.FamilyOf(b.CIDR.Addr()) == f {
			literals += 1 + len(b.Except)
		}
	}
	if literals > maxLiterals {
		return c.blockSet(f, blocks)
	}
	var list []filter.Rule
	for _, from := range blocks {
		if b, ok := block(from); ok && filter.FamilyOf(from.CIDR.Addr()) == f {
			list = append(list, filter.Rule{Block: b})
		}
	}
	return list
}

// block drops holes that lie outside the block. ok is false if the holes leave
// nothing.
func block(from *cluster.IPBlock) (filter.Block, bool) {
	b := filter.Block{CIDR: from.CIDR.Masked()}
	for _, e := range mergePrefixes(from.Except) {
		switch {
		case e.Bits() <= b.CIDR.Bits() && e.Overlaps(b.CIDR):
			return filter.Block{}, false
		case e.Overlaps(b.CIDR):
			b.Except = append(b.Except, e)
		}
	}
	return b, true
}

// blockSet returns the condition for all blocks of a family as one set; none if
// the holes leave nothing.
func (c *compiled) blockSet(f filter.Family, blocks []*cluster.IPBlock) []filter.Rule {
	var ranges []filter.Range
	for _, b := range blocks {
		if filter.FamilyOf(b.CIDR.Addr()) == f {
			ranges = append(ranges, blockRanges(b)...)
		}
	}
	if ranges = mergeRanges(ranges, nextAddr); len(ranges) == 0 {
		return nil
	}
	// Like the name, the comment must follow from the content alone: rules that
	// write the same addresses differently share the set.
	s := filter.Set{Kind: filter.AddrRanges, Family: f, Ranges: ranges, Comment: fmt.Sprintf("ipBlock peers of a rule, %d ranges", len(ranges))}
	s.Name = fmt.Sprintf("blocks%d-%s", f, digest(rangeTexts(s)...))
	c.add(&setRef{set: s})
	return []filter.Rule{{PeerSet: s.Name}}
}

// rangeTexts is what the name of a set of ranges is derived from.
func rangeTexts(s filter.Set) []string {
	list := make([]string, 0, 2*len(s.Ranges))
	for _, r := range s.Ranges {
		list = append(list, s.Kind.Format(r.First), s.Kind.Format(r.Last))
	}
	return list
}

// podPeers returns the conditions for sets of pods.
func (c *compiled) podPeers(f filter.Family, specs []*policy.SetSpec) []filter.Rule {
	var list []filter.Rule
	for _, s := range specs {
		list = append(list, filter.Rule{PeerSet: c.podSet(f, s, filter.Addrs)})
	}
	return list
}

// podSet returns the name of the set of a spec in one family.
func (c *compiled) podSet(f filter.Family, spec *policy.SetSpec, kind filter.SetKind) string {
	what := "pods"
	if kind == filter.AddrPorts {
		what = "ports"
	}
	name := fmt.Sprintf("%s%d-%s", what, f, spec.Key().Name())
	c.add(&setRef{key: spec.Key(), spec: spec, set: filter.Set{Name: name, Kind: kind, Family: f, Comment: spec.String()}})
	return name
}
