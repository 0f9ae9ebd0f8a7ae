// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab"
)

func TestTheNodesKeepAwayFromUsedAddresses(t *testing.T) {
	plain := addrs([]string{"172.30.0.11", "fd00:172:30::11"})
	if got := lab.FreeNetwork(nil).Node(0); !slices.Equal(got, plain) {
		t.Errorf("first node %v, want %v", got, plain)
	}
	later := addrs([]string{"172.30.0.109", "fd00:172:30::109"})
	if got := lab.FreeNetwork(nil).Node(98); !slices.Equal(got, later) {
		t.Errorf("node 98 %v, want %v", got, later)
	}
	used := addrs([]string{"172.30.0.200", "172.30.1.1", "fd00:172:30::abcd"})
	n := lab.FreeNetwork(used)
	foreign := func(a netip.Addr) bool { return !n.Contains(a) }
	if slices.ContainsFunc(used, n.Contains) || slices.ContainsFunc(n.Node(0), foreign) {
		t.Errorf("network %v with node %v beside %v", n, n.Node(0), used)
	}
}

// Users have pods at the first and the last address of a /24, at the addresses of
// the lab's own nodes, and nodes with names as long as names can be.
func TestAddressesAndNamesThatUsersHave(t *testing.T) {
	long := strings.Repeat(strings.Repeat("n", 62)+".", 4) + "x"
	if len(long) != 253 {
		t.Fatal(len(long))
	}
	used := addrs([]string{"10.244.1.1", "10.244.1.5", "10.244.1.255", "10.244.2.0", "172.30.0.11",
		"fd00:244:1::1", "fd00:172:30::11"})
	for _, w := range wirings(t) {
		t.Run(string(w), func(t *testing.T) {
			b := newBed(t, lab.Config{Wiring: w, Nodes: []string{long, "node2"}, Used: used, Pods: used,
				CNIBin: os.Getenv("PODWALL_CNI_BIN")})
			b.pod(strings.Repeat("s", 63)+"/"+long, long, "10.244.1.1", "fd00:244:1::1")
			b.pod("x/plain", long, "10.244.1.5", "10.200.0.7", "fd00:244:1::5", "fd00:200::7")
			b.pod("x/last", long, "10.244.1.255")
			b.pod("x/zero", "node2", "10.244.2.0")
			b.host("outside", "172.30.0.11", "fd00:172:30::11")
			b.mustArrive(b.matrix())
		})
	}
}
