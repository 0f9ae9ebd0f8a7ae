// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// numbers count addresses, to bound the members of sets.
type numbers struct {
	all        int
	namespaces []*cluster.Namespace
	in         map[string]int        // by namespace
	with       map[cluster.Label]int // by label
}

func newNumbers(snap *cluster.Snapshot) *numbers {
	n := &numbers{namespaces: snap.Namespaces, in: map[string]int{}, with: map[cluster.Label]int{}}
	for _, p := range snap.Pods {
		n.all += len(p.IPs)
		n.in[p.Key.Namespace] += len(p.IPs)
		for _, l := range p.Labels {
			n.with[l] += len(p.IPs)
		}
	}
	return n
}

// members is an upper bound of the members of all sets to which policies of a namespace refer.
func (n *numbers) members(policies []*cluster.Policy) (sum int) {
	known := map[string]bool{}
	for _, p := range policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, peer := range r.Peers.List {
				if peer.Block != nil {
					sum += 1 + len(peer.Block.Except)
					continue
				}
				key := peer.Pods.Text() + " of the own namespace"
				if peer.Namespaces != nil {
					key = peer.Pods.Text() + " of " + peer.Namespaces.Text()
				}
				if !known[key] { // rules share the sets of equal selectors
					known[key] = true
					sum += n.selected(p.Key.Namespace, peer)
				}
			}
			sum += len(r.Ports.List) * n.named(r)
		}
	}
	return sum
}

// selected is an upper bound of the addresses of a peer.
func (n *numbers) selected(namespace string, peer cluster.Peer) int {
	most := n.in[namespace]
	if peer.Namespaces != nil {
		most = 0
		for _, ns := range n.namespaces {
			if peer.Namespaces.Matches(ns.Labels) {
				most += n.in[ns.Name]
			}
		}
	}
	if exact := peer.Pods.Exact(); len(exact) > 0 {
		sum := 0
		for _, l := range exact {
			sum += n.with[l]
		}
		most = min(most, sum)
	}
	return most
}

// named is how many addresses may be in the set of one port of a rule: only those that are named
// have sets.
func (n *numbers) named(r cluster.Rule) int {
	if slices.ContainsFunc(r.Ports.List, func(p cluster.Port) bool { return p.Name != "" }) {
		return n.all
	}
	return 0
}
