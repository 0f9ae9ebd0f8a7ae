// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A pod can speak and be spoken to by link-local addresses, which nobody assigns. So
// a block that is wider than all of them does not mean those that are where pods are;
// elsewhere, and on the node itself, they are what the block says (docs/adr/0017).

// splitLinkLocal takes the link-local addresses out of the wide blocks of a family.
// apart are these addresses, as a block for each that had any.
func splitLinkLocal(f inet.Family, blocks []*cluster.IPBlock) (rest, apart []*cluster.IPBlock) {
	own := inet.LinkLocal(f)
	for _, b := range blocks {
		if inet.FamilyOf(b.CIDR.Addr()) != f {
			continue
		}
		if b.CIDR.Bits() >= own.Bits() || !b.CIDR.Overlaps(own) {
			rest = append(rest, b)
			continue
		}
		rest = append(rest, &cluster.IPBlock{CIDR: b.CIDR, Except: append(slices.Clone(b.Except), own)})
		apart = append(apart, &cluster.IPBlock{CIDR: own, Except: b.Except})
	}
	return rest, apart
}

// places are where a link-local peer may be that a wide block means. Linux forwards
// none of IPv6; the node's own packets to its pods need no rule.
func places(f inet.Family, d program.Direction) []program.Place {
	switch {
	case d == program.Egress && f == inet.IPv4:
		return []program.Place{program.Elsewhere, program.OnNode}
	case d == program.Egress:
		return []program.Place{program.OnNode}
	case f == inet.IPv4:
		return []program.Place{program.Elsewhere}
	}
	return nil
}

// at returns the conditions for peers at any of the places.
func at(places []program.Place, peers []program.Rule) (list []program.Rule) {
	for _, p := range places {
		for _, r := range peers {
			r.Place = p
			list = append(list, r)
		}
	}
	return list
}
