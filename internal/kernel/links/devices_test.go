// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatMayLeadToPodsIsNotOpen(t *testing.T) {
	l := New(Options{})
	l.Remember([]string{"br-pods"})
	for i, d := range []device{
		{name: "lo", kind: "device"},
		{name: "eth0", kind: "device"},
		{name: "eth1", kind: "veth", away: true, uplink: true}, // a node that is a container
		{name: "wg0", kind: "wireguard"},
		{name: "docker0", kind: "bridge"},
		{name: "cni0", kind: "bridge"},
		{name: "br-pods", kind: "bridge"},
		{name: "br-nic", kind: "bridge", uplink: true},
		{name: "cali123", kind: "veth", away: true},
		{name: "nk0", kind: "netkit", away: true},
		{name: "veth-port", kind: "veth", away: true, master: 6},
		{name: "ve-debian", kind: "veth", away: true},
		{name: "here-a", kind: "veth"}, // both ends are here
	} {
		d.index = i + 1
		if l.names == nil {
			l.names = map[int]device{}
		}
		l.names[d.index] = d
	}
	want := []string{"br-nic", "docker0", "eth0", "eth1", "here-a", "lo", "ve-debian", "wg0"}
	if diff := cmp.Diff(want, l.Open()); diff != "" {
		t.Errorf("open interfaces (-want +got):\n%s", diff)
	}
}

func TestPatternsOfInterfaces(t *testing.T) {
	for name, want := range map[string]bool{"eth0": true, "ens5": true, "ens55": false, "veth1": false} {
		if got := matches(name, []string{"eth*", "ens?"}); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}
