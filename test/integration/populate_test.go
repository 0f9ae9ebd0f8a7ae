// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"testing"

	"github.com/podwall/podwall/internal/lab"
)

// onBothWirings runs a test on two nodes with the cluster of populate.
func onBothWirings(t *testing.T, test func(t *testing.T, w *world)) {
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(wiring), func(t *testing.T) {
			w := newWorld(t, wiring, "node1", "node2")
			w.populate()
			test(t, w)
		})
	}
}

// populate makes the cluster that the examples speak about: two pods of nsa on
// one node and one on the other, pods of two other namespaces, and hosts
// outside, one of them in the examples' CIDR.
func (w *world) populate() {
	w.t.Helper()
	w.populateNode1()
	w.createNamespace("default")
	w.pod("nsa/a3", "node2", addrs("10.244.2.5", "fd00:244:2::5"))
	w.pod("default/d1", "node2", addrs("10.244.2.6", "fd00:244:2::6"))
	w.host("cidr", "14.215.3.4", "2001:db8:14::1")
	w.ask()
}

// populateNode1 makes the part of that cluster that needs one node.
func (w *world) populateNode1() {
	w.t.Helper()
	w.createNamespace("nsa", "app=nsa")
	w.createNamespace("nsb", "app=nsb")
	w.pod("nsa/a1", "node1", addrs("10.244.1.5", "fd00:244:1::5"))
	w.pod("nsa/a2", "node1", addrs("10.244.1.6", "fd00:244:1::6"))
	w.pod("nsb/b1", "node1", addrs("10.244.1.7", "fd00:244:1::7"))
	w.host("far", "93.184.216.34", "2001:db8:cafe::1")
	w.ask()
}

// newSmallWorld is one node with some pods.
func newSmallWorld(t *testing.T, wiring lab.Wiring) *world {
	t.Helper()
	w := newWorld(t, wiring, "node1")
	w.populateNode1()
	return w
}
