// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Pods can send from and receive at link-local addresses, which are not assigned by any network. So
// a block wider than the whole link-local range does not mean link-local peers where pods are.
// Behind other interfaces, and on the node itself, it does (docs/adr/0017).

// splitLinkLocal separates the link-local addresses from the wide blocks of a family. apart are
// these addresses, as one block for each wide block.
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

// places returns where a link-local peer may be to match a wide block. Linux forwards no IPv6
// link-local traffic; the node's own packets to its pods need no rule.
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
