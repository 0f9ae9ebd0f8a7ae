// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"os"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab"
)

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
