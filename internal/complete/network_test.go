// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"net/netip"
	"slices"
	"testing"
)

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestTheNodesKeepAwayFromUsedAddresses(t *testing.T) {
	plain := addrs("172.30.0.11", "fd00:172:30::11")
	if got := FreeNetwork(nil).Node(0); !slices.Equal(got, plain) {
		t.Errorf("first node %v, want %v", got, plain)
	}
	later := addrs("172.30.0.109", "fd00:172:30::109")
	if got := FreeNetwork(nil).Node(98); !slices.Equal(got, later) {
		t.Errorf("node 98 %v, want %v", got, later)
	}
	used := addrs("172.30.0.200", "172.30.1.1", "fd00:172:30::abcd")
	n := FreeNetwork(used)
	foreign := func(a netip.Addr) bool { return !n.Contains(a) }
	if slices.ContainsFunc(used, n.Contains) || slices.ContainsFunc(n.Node(0), foreign) {
		t.Errorf("network %v with node %v beside %v", n, n.Node(0), used)
	}
}
