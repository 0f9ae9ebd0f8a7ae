// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/netpol/program"
)

// closure is where the rules drop all traffic to groups: bridges with a pod that is isolated for
// ingress, and the pods on them.
type closure struct {
	links map[string]bool
	pods  map[netip.Addr]bool
	on    map[netip.Addr]string // the link of each of the pods
}

func closureOf(n program.Node) closure {
	c := closure{links: map[string]bool{}, pods: map[netip.Addr]bool{}, on: map[netip.Addr]string{}}
	for _, link := range n.Ingress {
		if slices.Contains(n.ClosedBridges, link) {
			c.links[link] = true
		}
	}
	for _, at := range n.Attached {
		if c.links[at.Link] {
			c.pods[at.Addr], c.on[at.Addr] = true, at.Link
		}
	}
	return c
}

func (c closure) equal(o closure) bool {
	return maps.Equal(c.links, o.links) && maps.Equal(c.pods, o.pods)
}

// beyond returns the pods for which a flow to a group may have another verdict than under the other
// closure: pods on a bridge that was closed since. With knownPods the pods are also those of the
// other; then only those are returned that the other did not have on a closed bridge.
func (c closure) beyond(o closure, knownPods bool) (pods []netip.Addr) {
	for a, link := range c.on {
		if !o.links[link] || knownPods && !o.pods[a] {
			pods = append(pods, a)
		}
	}
	slices.SortFunc(pods, netip.Addr.Compare)
	return pods
}
