// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/netpol/compile"
)

// class are addresses that no policy tells apart.
type class struct {
	v6, host bool
	// members are one or two addresses, of two pods, that stand for all.
	members []member
}

// member is an address of a pod, or of a host.
type member struct {
	pod  *cluster.Pod // nil for a host
	addr netip.Addr
}

func (m member) end() explain.End { return explain.EndAt(m.pod, m.addr) }

// classifier puts addresses into classes: those of pods of one namespace with the same named
// ports, the same of those labels that a selector reads, and in the same blocks. An address that
// two pods have, or a link-local one, is a class of its own. The node counts only where the
// policies of the namespace may be above a budget of a node.
type classifier struct {
	answers *explain.Cluster
	read    map[string]bool // keys of labels that selectors read
	blocks  blocks
	shared  map[netip.Addr]int
	large   map[string]bool // namespaces in which the node counts
	index   map[string]int
	all     [][]member
}

func newClassifier(snap *cluster.Snapshot, answers *explain.Cluster) *classifier {
	c := &classifier{answers: answers, read: map[string]bool{}, shared: map[netip.Addr]int{}, index: map[string]int{},
		blocks: blocksOf(snap.Policies)}
	for _, p := range snap.Policies {
		for _, s := range selectorsOf(p) {
			for _, key := range s.Keys() {
				c.read[key] = true
			}
		}
	}
	for _, p := range snap.Pods {
		for _, a := range p.IPs {
			c.shared[a]++
		}
	}
	c.large = c.mayExceed(snap)
	return c
}

func selectorsOf(p *cluster.Policy) []cluster.Selector {
	list := []cluster.Selector{p.Subject}
	for _, r := range slices.Concat(p.Ingress, p.Egress) {
		for _, peer := range r.Peers.List {
			if peer.Block == nil {
				list = append(list, peer.Pods)
			}
		}
	}
	return list
}

// kind says what policies may see of a pod besides its addresses, as a text that is equal for
// equal pods.
func (c *classifier) kind(p *cluster.Pod) string {
	node := ""
	if c.large[p.Key.Namespace] {
		node = p.Node
	}
	return fmt.Sprintf("%q %q %q %v %t", p.Key.Namespace, node, c.labels(p), p.NamedPorts(), p.Terminating)
}

func (c *classifier) labels(p *cluster.Pod) (list cluster.Labels) {
	for _, l := range p.Labels {
		if c.read[l.Key] {
			list = append(list, l)
		}
	}
	return list
}

// of returns the class of an address of a pod of the kind.
func (c *classifier) of(p *cluster.Pod, kind string, a netip.Addr) int {
	key := fmt.Sprintf("%t %v %s", a.Is6(), c.blocks.with(a), kind)
	if c.shared[a] > 1 || a.IsLinkLocalUnicast() {
		key = fmt.Sprintf("own %s %s", p.Key, a)
	}
	return c.put(key, member{p, a})
}

// host returns the class of an address outside, of which there is one only.
func (c *classifier) host(a netip.Addr) int { return c.put("host "+a.String(), member{addr: a}) }

func (c *classifier) put(key string, m member) int {
	i, known := c.index[key]
	if !known {
		i = len(c.all)
		c.index[key] = i
		c.all = append(c.all, nil)
	}
	c.all[i] = append(c.all[i], m)
	return i
}

// settle chooses who stands for each class, on few nodes: the program of each is compiled.
func (c *classifier) settle() []class {
	classes := map[string]int{} // by node
	for _, list := range c.all {
		seen := map[string]bool{}
		for _, m := range list {
			if m.pod != nil && !seen[m.pod.Node] {
				seen[m.pod.Node] = true
				classes[m.pod.Node]++
			}
		}
	}
	rank := map[string]int{}
	for i, n := range slices.SortedFunc(maps.Keys(classes), func(a, b string) int {
		return cmp.Or(cmp.Compare(classes[b], classes[a]), cmp.Compare(a, b))
	}) {
		rank[n] = i
	}
	list := make([]class, len(c.all))
	for i, members := range c.all {
		slices.SortStableFunc(members, func(a, b member) int {
			if a.pod == nil || b.pod == nil {
				return 0
			}
			return cmp.Compare(rank[a.pod.Node], rank[b.pod.Node])
		})
		first := members[0]
		list[i] = class{v6: first.addr.Is6(), host: first.pod == nil, members: []member{first}}
		if j := slices.IndexFunc(members, func(m member) bool { return m.pod != first.pod }); j >= 0 {
			list[i].members = append(list[i].members, members[j])
		}
	}
	c.all = nil
	return list
}

// mayExceed returns the namespaces whose policies may need more rules on a node, or sets with
// more members, than a budget has: there it matters which pods are on the node. Both sums are
// upper bounds; below them no node is above.
func (c *classifier) mayExceed(snap *cluster.Snapshot) map[string]bool {
	rules, sizes := map[string]int{}, map[*cluster.Policy]int{}
	of := map[string][]*cluster.Policy{}
	for _, p := range snap.Policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			sizes[p] += (1 + len(r.Peers.List)) * (1 + len(r.Ports.List))
		}
		of[p.Key.Namespace] = append(of[p.Key.Namespace], p)
	}
	seen := map[string]bool{}
	for _, p := range snap.Pods {
		kind := fmt.Sprintf("%q %q", p.Key.Namespace, c.labels(p))
		if len(of[p.Key.Namespace]) == 0 || seen[kind] {
			continue
		}
		seen[kind] = true
		for _, policy := range of[p.Key.Namespace] {
			if policy.Subject.Matches(p.Labels) {
				rules[p.Key.Namespace] += chainsOfPod * sizes[policy]
			}
		}
	}
	large, n := map[string]bool{}, newNumbers(snap)
	for name, policies := range of {
		large[name] = rules[name] > compile.MaxNamespaceRules || n.members(policies) > maxMembers
	}
	return large
}

const (
	// chainsOfPod is how many chains may hold the rules of a policy: of two families, enforced and in
	// audit mode.
	chainsOfPod = 4
	// maxMembers is a number of members of sets below which no namespace is above its budget.
	maxMembers = 1 << 18
)

// blocks are the prefixes that policies name.
type blocks struct {
	lengths [2][]int // by family
	index   map[netip.Prefix]int
}

func blocksOf(policies []*cluster.Policy) blocks {
	b := blocks{index: map[netip.Prefix]int{}}
	lengths := [2]map[int]bool{{}, {}}
	for _, p := range policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, peer := range r.Peers.List {
				if peer.Block == nil {
					continue
				}
				for _, prefix := range append([]netip.Prefix{peer.Block.CIDR}, peer.Block.Except...) {
					if _, known := b.index[prefix.Masked()]; !known {
						b.index[prefix.Masked()] = len(b.index)
						lengths[family(prefix.Addr())][prefix.Bits()] = true
					}
				}
			}
		}
	}
	for f := range lengths {
		b.lengths[f] = slices.Sorted(maps.Keys(lengths[f]))
	}
	return b
}

func family(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// with returns the blocks that have the address.
func (b blocks) with(a netip.Addr) (list []int) {
	for _, bits := range b.lengths[family(a)] {
		prefix, err := a.Prefix(bits)
		if i, known := b.index[prefix]; err == nil && known {
			list = append(list, i)
		}
	}
	return list
}
