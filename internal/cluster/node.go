// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"net/netip"
	"slices"
)

// Node is a Node object, reduced to what policies and Services need: a heartbeat changes nothing of
// it. It is immutable once it is in a Store.
type Node struct {
	Name string
	// Addrs are the internal and external addresses of status.addresses, unmapped
	// and without duplicates, in the order of the API.
	Addrs []netip.Addr
	// Zone is the label topology.kubernetes.io/zone, empty for none. Endpoints have hints for zones.
	Zone string
	// PodCIDRs are the ranges of the node's pods (spec.podCIDRs), masked, in the order of the API.
	PodCIDRs []netip.Prefix
	// Leaving says that the node is about to go: it is being deleted, or the cluster autoscaler has
	// chosen it. Load balancers shall not send it new connections.
	Leaving bool
}

// Equal reports whether two nodes are the same for every decision.
func (n *Node) Equal(o *Node) bool {
	if n == nil || o == nil {
		return n == o
	}
	return n.Name == o.Name && n.Zone == o.Zone && n.Leaving == o.Leaving && slices.Equal(n.Addrs, o.Addrs) &&
		slices.Equal(n.PodCIDRs, o.PodCIDRs)
}

// newNodes returns an empty table. Policies need the addresses only.
func newNodes() table[Node] {
	t := newTable(nodeKey, (*Node).Equal)
	t.main.equal = func(a, b *Node) bool {
		return a == b || a != nil && b != nil && slices.Equal(a.Addrs, b.Addrs)
	}
	return t
}

func nodeKey(n *Node) Key { return Key{Name: n.Name} }

// SetNode stores a node.
func (tx *Tx) SetNode(n *Node) { tx.noteNodes(tx.store.nodes.set(nodeKey(n), n)) }

// DeleteNode removes a node; an unknown one is no error.
func (tx *Tx) DeleteNode(name string) { tx.noteNodes(tx.store.nodes.set(Key{Name: name}, nil)) }

// ReplaceNodes makes the given nodes the only ones.
func (tx *Tx) ReplaceNodes(list []*Node) { tx.noteNodes(tx.store.nodes.replace(list)) }

// noteNodes notes a change of the nodes. The first address of each family of a node, under which
// others know it, is reserved: no pod can have it. Further addresses are not: some cloud providers
// list there the addresses that they give to pods.
func (tx *Tx) noteNodes(changed bool) {
	if !changed {
		return
	}
	tx.changed = true
	reserved := map[netip.Addr]string{}
	for n := range tx.store.nodes.objects.all() {
		seen := map[bool]bool{}
		for _, a := range n.Addrs {
			if seen[a.Is4()] {
				continue
			}
			seen[a.Is4()] = true
			if why := "an address of Node " + n.Name; reserved[a] == "" || why < reserved[a] {
				reserved[a] = why
			}
		}
	}
	tx.SetReserved(reservedByNodes{}, reserved)
}

// reservedByNodes is the origin of the addresses that Node objects reserve.
type reservedByNodes struct{}

// Node returns a node, or nil.
func (s *Store) Node(name string) *Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes.objects.get(Key{Name: name})
}

// Policy returns a policy, or nil.
func (s *Store) Policy(k Key) *Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policies.objects.get(k)
}

// Pod returns the pod with the name, or nil.
func (s *Store) Pod(k Key) *Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods.objects.get(k)
}

// PodsOn returns the pods of a node, in no order. Its cost grows with the pods of the cluster.
func (s *Store) PodsOn(node string) (list []*Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.pods.objects.all() {
		if p.Node == node {
			list = append(list, p)
		}
	}
	return list
}

// Nodes returns all nodes, sorted by name.
func (s *Store) Nodes() []*Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.nodes.list()
	slices.SortFunc(list, func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
