// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"testing"
)

func TestOwnersOfAddresses(t *testing.T) {
	s := NewStore()
	at := netip.MustParseAddr
	s.Update(func(tx *Tx) {
		tx.SetNode(&Node{Name: "n", Addrs: []netip.Addr{at("192.0.2.1")}})
		tx.SetPod(&Pod{Key: Key{"a", "web"}, IPs: []netip.Addr{at("10.0.0.1"), at("fd00::1")}})
		tx.SetPod(&Pod{Key: Key{"a", "host"}, HostNetwork: true, IPs: []netip.Addr{at("192.0.2.1")}})
		tx.SetPod(&Pod{Key: Key{"a", "gone"}, Finished: true, IPs: []netip.Addr{at("10.0.0.2")}})
	})
	got := s.Owners([]netip.Addr{at("192.0.2.1"), at("fd00::1"), at("10.0.0.2"), at("8.8.8.8")})
	if len(got) != 2 || got[at("192.0.2.1")] != (Owner{Node: "n"}) || *got[at("fd00::1")].Pod != (Key{"a", "web"}) {
		t.Errorf("owners %v", got)
	}
	if p := s.Pod(Key{"a", "gone"}); p == nil || s.Pod(Key{"a", "none"}) != nil {
		t.Errorf("pod %v", p)
	}
}
