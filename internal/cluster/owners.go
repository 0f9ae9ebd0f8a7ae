// SPDX-License-Identifier: Apache-2.0

package cluster

import "net/netip"

// Owner is who has an address: pods that have a network of their own, or a node.
type Owner struct {
	Pod  *Key
	Node string
}

// Owners finds out who has these addresses now; those that nobody has are left out. If several pods
// have one, any of them is named. It walks over all pods and nodes once, whatever the number of
// addresses.
func (s *Store) Owners(addrs []netip.Addr) map[netip.Addr]Owner {
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a] = true
	}
	found := map[netip.Addr]Owner{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.nodes.objects.all() {
		for _, a := range n.Addrs {
			if wanted[a] {
				found[a] = Owner{Node: n.Name}
			}
		}
	}
	for p := range s.pods.objects.all() {
		if !p.Networked() {
			continue
		}
		for _, a := range p.IPs {
			if wanted[a] {
				found[a] = Owner{Pod: &p.Key}
			}
		}
	}
	return found
}
