// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// eachBlock returns the policy with every readable block replaced by others; a
// block for which there is no other stays.
func eachBlock(p *networkingv1.NetworkPolicy, rewrite func(cidr netip.Prefix,
	except []netip.Prefix) []networkingv1.IPBlock) *networkingv1.NetworkPolicy {
	return eachRule(p, func(r rule) []rule {
		var peers []networkingv1.NetworkPolicyPeer
		for _, peer := range r.peers {
			blocks := []networkingv1.IPBlock{}
			if cidr, except, ok := readBlock(peer.IPBlock); ok {
				blocks = rewrite(cidr, except)
			}
			for i := range blocks {
				peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &blocks[i]})
			}
			if len(blocks) == 0 {
				peers = append(peers, peer)
			}
		}
		return []rule{{peers, r.ports}}
	})
}

// readBlock reads a block as package convert does, which knows odd forms of a CIDR; ok
// is false if there is none, or one that is not valid.
func readBlock(b *networkingv1.IPBlock) (cidr netip.Prefix, except []netip.Prefix, ok bool) {
	if b == nil {
		return cidr, nil, false
	}
	rule := networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{IPBlock: b}}}
	p, found := convert.Policy(&networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{rule}}})
	if slices.ContainsFunc(found, func(d cluster.Diagnostic) bool { return d.Severity == cluster.Error }) {
		return cidr, nil, false
	}
	for _, r := range p.Ingress {
		for _, peer := range r.Peers.List {
			if peer.Block != nil {
				return peer.Block.CIDR, peer.Block.Except, true
			}
		}
	}
	return cidr, nil, false
}

func blockOf(cidr netip.Prefix, except []netip.Prefix) networkingv1.IPBlock {
	b := networkingv1.IPBlock{CIDR: cidr.String()}
	for _, e := range except {
		b.Except = append(b.Except, e.String())
	}
	return b
}

// sibling returns the other half of the prefix that is one bit shorter.
func sibling(p netip.Prefix) netip.Prefix {
	b := p.Addr().AsSlice()
	b[(p.Bits()-1)/8] ^= 0x80 >> ((p.Bits() - 1) % 8)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits())
}

func TestABlockEqualsItsHalves(t *testing.T) {
	meansTheSame(t, func(p *networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
		return []*networkingv1.NetworkPolicy{eachBlock(p,
			func(cidr netip.Prefix, except []netip.Prefix) []networkingv1.IPBlock {
				if cidr.IsSingleIP() {
					return nil
				}
				low := netip.PrefixFrom(cidr.Addr(), cidr.Bits()+1)
				return []networkingv1.IPBlock{blockOf(sibling(low), except), blockOf(low, except)}
			})}
	})
}

// The rest of a block after a hole are the siblings on the way down to the
// hole; further holes are taken from each of them.
func TestABlockWithHolesEqualsTheRemainingBlocks(t *testing.T) {
	meansTheSame(t, func(p *networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
		return []*networkingv1.NetworkPolicy{eachBlock(p,
			func(cidr netip.Prefix, except []netip.Prefix) []networkingv1.IPBlock {
				rest := []netip.Prefix{cidr}
				for _, hole := range except {
					var next []netip.Prefix
					for _, r := range rest {
						next = append(next, around(r, hole)...)
					}
					rest = next
				}
				var blocks []networkingv1.IPBlock
				for _, r := range rest {
					blocks = append(blocks, blockOf(r, nil))
				}
				return blocks
			})}
	})
}

func around(p, hole netip.Prefix) []netip.Prefix {
	if !p.Overlaps(hole) {
		return []netip.Prefix{p}
	}
	var rest []netip.Prefix
	for bits := hole.Bits(); bits > p.Bits(); bits-- {
		rest = append(rest, sibling(netip.PrefixFrom(hole.Addr(), bits).Masked()))
	}
	return rest
}
