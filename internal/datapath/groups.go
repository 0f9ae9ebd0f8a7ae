// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/nft"
)

// closure is where the rules let nothing through to a group: bridges with a pod
// that is isolated for ingress, and the pods on them.
type closure struct {
	links map[string]bool
	pods  map[netip.Addr]bool
}

func closureOf(n nft.Node) closure {
	c := closure{links: map[string]bool{}, pods: map[netip.Addr]bool{}}
	for _, link := range n.Ingress {
		if slices.Contains(n.Carried, link) {
			c.links[link] = true
		}
	}
	for _, at := range n.Attached {
		if c.links[at.Link] {
			c.pods[at.Addr] = true
		}
	}
	return c
}

func (c closure) equal(o closure) bool {
	return maps.Equal(c.links, o.links) && maps.Equal(c.pods, o.pods)
}

// beyond reports whether a flow to a group can exist that the other closure
// judged otherwise: a bridge was closed since. With knownPods the pods are those
// of the other too; then one can have been found on a closed bridge.
func (c closure) beyond(o closure, knownPods bool) bool {
	for link := range c.links {
		if !o.links[link] {
			return true
		}
	}
	for a := range c.pods {
		if knownPods && !o.pods[a] {
			return true
		}
	}
	return false
}
