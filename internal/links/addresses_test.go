// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestTheBroadcastAddressesOfANetwork(t *testing.T) {
	for text, want := range map[string][]string{
		"10.244.1.5/24":  {"10.244.1.0", "10.244.1.255"},
		"10.244.21.5/20": {"10.244.16.0", "10.244.31.255"},
		"10.0.0.1/30":    {"10.0.0.0", "10.0.0.3"},
		"10.0.0.1/31":    nil,
		"10.0.0.1/32":    nil,
		"fd00::1/64":     nil,
	} {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		a.Broadcast = nil
		var got []string
		for _, b := range broadcastsOf(*a) {
			got = append(got, b.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
		set := netip.MustParseAddr("10.9.9.9")
		if a.Broadcast = set.AsSlice(); !slices.Contains(broadcastsOf(*a), set) {
			t.Errorf("%s: the address that was set is missing", text)
		}
	}
}
