// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"maps"
	"slices"
	"testing"
)

// The device with the node's address may be on top of the bridge in several ways.
func TestTheBridgeUnderADevice(t *testing.T) {
	l := New(Options{})
	l.names = map[int]device{
		1: {index: 1, name: "br0", kind: "bridge"},
		2: {index: 2, name: "br0.100", kind: "vlan", peer: 1},
		3: {index: 3, name: "gw0", kind: "veth", peer: 4},
		4: {index: 4, name: "gw0-port", kind: "veth", peer: 3, master: 1},
		5: {index: 5, name: "eth0", kind: "device"},
		6: {index: 6, name: "eth0.100", kind: "vlan", peer: 5},
		7: {index: 7, name: "pod", kind: "veth", peer: 4, away: true, netns: 3}, // the index is of another namespace
	}
	for name, want := range map[int]int{2: 1, 3: 1, 5: 0, 6: 0, 7: 0} {
		if got := l.bridgeUnder(name); got != want {
			t.Errorf("under %s is %d, want %d", l.names[name].name, got, want)
		}
	}
	if got := slices.Concat(slices.Collect(maps.Values(l.NodePorts()))...); len(got) != 1 || got[0] != "gw0-port" {
		t.Errorf("the node's own ports are %v, want gw0-port", got)
	}
}
