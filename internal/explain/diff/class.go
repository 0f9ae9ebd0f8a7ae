// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
)

// classify puts ends into classes that no policy of either state tells apart: pods of one
// namespace and node with the same labels and named ports, whose addresses are in the same
// blocks. An end that is special in any way has a class of its own: a host, an address that
// two pods have, a link-local one.
func (c *comparer) classify() {
	var blocks [2][]netip.Prefix
	var shared [2]map[netip.Addr]int
	c.pods = [2]map[cluster.Key]*cluster.Pod{{}, {}}
	for state, s := range c.states {
		blocks[state] = blocksOf(s.Snapshot.Policies)
		shared[state] = map[netip.Addr]int{}
		for _, p := range s.Snapshot.Pods {
			c.pods[state][p.Key] = p
			for _, a := range p.IPs {
				shared[state][a]++
			}
		}
	}
	classes := map[string]int{}
	for i, e := range c.ends {
		var b strings.Builder
		for state := range c.states {
			if e.special = e.special || e.host || unusual(e.addrs[state], shared[state]); e.special {
				fmt.Fprintf(&b, "special %d", i)
			}
			if p := c.pods[state][e.key]; p != nil {
				fmt.Fprintf(&b, "%q %q %q %v %t", p.Key.Namespace, p.Node, p.Labels, p.NamedPorts(), p.Terminating)
			}
			for _, a := range e.addrs[state] {
				b.WriteByte('|')
				if a.IsValid() {
					b.WriteString(within(blocks[state], a))
				}
			}
		}
		class, known := classes[b.String()]
		if !known {
			class = len(classes)
			classes[b.String()] = class
		}
		e.class = class
	}
}

// unusual reports whether an address of a pod is not the pod's alone, or link-local.
func unusual(addrs [2]netip.Addr, shared map[netip.Addr]int) bool {
	return slices.ContainsFunc(addrs[:], func(a netip.Addr) bool {
		return a.IsValid() && (shared[a] > 1 || a.IsLinkLocalUnicast())
	})
}

// within says in which blocks an address is, as a text that is equal for equal answers.
func within(blocks []netip.Prefix, a netip.Addr) string {
	text := []byte("a")
	for i, b := range blocks {
		if b.Contains(a) {
			text = fmt.Appendf(text, " %d", i)
		}
	}
	return string(text)
}

// blocksOf returns all prefixes that policies name.
func blocksOf(policies []*cluster.Policy) []netip.Prefix {
	known := map[netip.Prefix]bool{}
	for _, p := range policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, peer := range r.Peers.List {
				if peer.Block != nil {
					for _, b := range append([]netip.Prefix{peer.Block.CIDR}, peer.Block.Except...) {
						known[b] = true
					}
				}
			}
		}
	}
	var list []netip.Prefix
	for b := range known {
		list = append(list, b)
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}
