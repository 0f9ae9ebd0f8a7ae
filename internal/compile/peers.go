// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

// maxLiterals is the number of blocks that a rule may spell out. Above it one
// interval set is cheaper than the walk: a literal costs a compare, the lookup
// about 200 ns on a connection's first packet.
const maxLiterals = 8

// peerGroup is one alternative of a rule's peers and the ports it is good for.
type peerGroup struct {
	rule  filter.Rule // with the peer conditions only
	ports []*cluster.Port
}

// groupPeers brings the clauses of a rule that have the same peer together.
func (b *builder) groupPeers(f filter.Family, clauses []policy.Clause) []peerGroup {
	var groups []peerGroup
	at := map[string]int{}
	blocks := b.blockSet(f, clauses)
	for _, c := range clauses {
		r, ok := b.peer(f, c, blocks)
		if !ok {
			continue // a block of the other family
		}
		i, known := at[r.String()]
		if !known {
			i = len(groups)
			at[r.String()] = i
			groups = append(groups, peerGroup{rule: r})
		}
		if !slices.Contains(groups[i].ports, c.Port) {
			groups[i].ports = append(groups[i].ports, c.Port)
		}
	}
	return groups
}

// peer returns the conditions of a clause on peer and destination. ok is false
// if no address of the family can meet them.
func (b *builder) peer(f filter.Family, c policy.Clause, blocks string) (r filter.Rule, ok bool) {
	if c.Dest != nil {
		r.DestSet = b.podSet(f, c.Dest, filter.AddrPorts)
	}
	switch {
	case c.Peer != nil:
		r.PeerSet = b.podSet(f, c.Peer, filter.Addrs)
	case c.Block == nil: // anybody
	case filter.FamilyOf(c.Block.CIDR.Addr()) != f:
		return r, false
	case blocks != "":
		r.PeerSet = blocks
	default:
		r.Block, ok = block(c.Block)
		return r, ok
	}
	return r, true
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

// blockSet returns the name of the set that holds all blocks of the rule in
// the family, or "" if they are few enough to be spelled out.
func (b *builder) blockSet(f filter.Family, clauses []policy.Clause) string {
	var blocks []*cluster.IPBlock
	seen := map[*cluster.IPBlock]bool{} // one block has a clause for each port
	literals := 0
	for _, c := range clauses {
		if c.Block == nil || filter.FamilyOf(c.Block.CIDR.Addr()) != f || seen[c.Block] {
			continue
		}
		seen[c.Block] = true
		blocks = append(blocks, c.Block)
		literals += 1 + len(c.Block.Except)
	}
	if literals <= maxLiterals {
		return ""
	}
	var prefixes []netip.Prefix
	for _, e := range blocks {
		prefixes = append(prefixes, subtract(e.CIDR, e.Except)...)
	}
	prefixes = mergePrefixes(prefixes)
	// Like the name, the comment must follow from the content alone: rules that
	// write the same addresses differently share the set.
	var text []string
	s := filter.Set{Kind: filter.Prefixes, Family: f, Comment: fmt.Sprintf("ipBlock peers of a rule, %d prefixes", len(prefixes))}
	for _, p := range prefixes {
		text = append(text, p.String())
		s.Elements = s.Elements.With(filter.Element{Addr: p.Addr(), Bits: uint8(p.Bits())})
	}
	s.Name = fmt.Sprintf("blocks%d-%s", f, digest(text...))
	b.sets[s.Name] = &setRef{set: s}
	return s.Name
}

// podSet returns the name of the set of a spec in one family.
func (b *builder) podSet(f filter.Family, spec *policy.SetSpec, kind filter.SetKind) string {
	key := spec.Key()
	what := "pods"
	if kind == filter.AddrPorts {
		what = "ports"
	}
	name := fmt.Sprintf("%s%d-%s", what, f, digest(key.Namespace, key.Namespaces, key.Pods,
		strconv.FormatBool(key.Local), key.PortName, key.Protocol.String()))
	if b.sets[name] == nil {
		b.sets[name] = &setRef{key: key, spec: spec, set: filter.Set{Name: name, Kind: kind, Family: f, Comment: spec.String()}}
	}
	return name
}
