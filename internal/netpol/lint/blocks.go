// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// blocks asks about except ranges. Package convert reports an except range that covers its
// block alone, or lies outside of it.
func (c *checker) blocks(field string, peers cluster.Peers) {
	for i, p := range peers.List {
		switch b := p.Block; {
		case b == nil || len(b.Except) == 0:
		case covered(b.CIDR, b.Except):
			if !slices.ContainsFunc(b.Except, func(e netip.Prefix) bool { return contains(e, b.CIDR) }) {
				c.say(EmptyBlock, field, fmt.Sprintf("the except ranges of ipBlock %s together cover all of it: "+
					"it matches no address", b.CIDR), "remove the block, or leave a part of it")
			}
		default:
			c.refilled(field, b, slices.Delete(slices.Clone(peers.List), i, i+1))
		}
	}
}

// refilled asks about except ranges that other blocks of the rule allow again: the items
// of a rule are alternatives. A selector that does is no mistake: pods are often allowed
// by label inside a range that is closed for all others.
func (c *checker) refilled(field string, b *cluster.IPBlock, others []cluster.Peer) {
	for _, e := range b.Except {
		if !b.CIDR.Overlaps(e) {
			continue
		}
		hole := smaller(e, b.CIDR)
		for _, o := range others {
			if o.Block == nil || !o.Block.CIDR.Overlaps(hole) || covered(smaller(hole, o.Block.CIDR), o.Block.Except) {
				continue
			}
			part := ""
			if !contains(o.Block.CIDR, hole) || slices.ContainsFunc(o.Block.Except, hole.Overlaps) {
				part = "a part of "
			}
			c.say(RefilledExcept, field,
				fmt.Sprintf("ipBlock %s allows %s%s again, which ipBlock %s leaves out by except",
					o.Block.CIDR, part, e, b.CIDR), "repeat the except in the other block, or remove it")
			break
		}
	}
}

// covered reports whether a list covers every address of a prefix.
func covered(p netip.Prefix, list []netip.Prefix) bool {
	list = slices.DeleteFunc(slices.Clone(list), func(e netip.Prefix) bool { return !e.Overlaps(p) })
	switch {
	case len(list) == 0:
		return false
	case slices.ContainsFunc(list, func(e netip.Prefix) bool { return contains(e, p) }):
		return true
	}
	low, high := halvesOf(p) // all of the list are smaller than p
	return covered(low, list) && covered(high, list)
}

// halvesOf splits a prefix of more than one address.
func halvesOf(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits() + 1
	bytes := p.Addr().AsSlice()
	bytes[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	top, _ := netip.AddrFromSlice(bytes)
	return netip.PrefixFrom(p.Addr(), bits), netip.PrefixFrom(top, bits)
}

// contains reports whether all of a prefix is in another.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// smaller returns the one of two overlapping prefixes that is inside the other.
func smaller(a, b netip.Prefix) netip.Prefix {
	if a.Bits() >= b.Bits() {
		return a
	}
	return b
}
