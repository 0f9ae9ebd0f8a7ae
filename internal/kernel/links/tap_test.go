// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/inet"
)

// tapTo makes a tap or tun interface that is up.
func tapTo(t *testing.T, name string, mode netlink.TuntapMode) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	check(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: mode}))
	link, err := netlink.LinkByName(name)
	check(t, err)
	check(t, netlink.LinkSetUp(link))
	return link.Attrs().Index
}

// A pod behind a tap is found by its route. Taps of other programs stay open until the node is known to have
// pods on taps; tunnels stay open.
func TestAPodBehindATapIsFoundByItsRoute(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		tap := tapTo(t, "tap0", netlink.TUNTAP_MODE_TAP)
		tapTo(t, "tap1", netlink.TUNTAP_MODE_TAP)
		tapTo(t, "tun0", netlink.TUNTAP_MODE_TUN)
		l := New(Options{})
		addr := netip.MustParseAddr("10.244.1.5")
		find := func() map[netip.Addr]inet.Path {
			t.Helper()
			l.stale.Store(true)
			found, err := l.Find(t.Context(), []Pod{{Addr: addr, Name: "shop/vm"}})
			check(t, err)
			return found
		}
		opened := func(want ...string) {
			t.Helper()
			got := slices.DeleteFunc(l.Open(), func(name string) bool { return name == "lo" })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("open interfaces (-want +got):\n%s", diff)
			}
		}
		if found := find(); len(found) > 0 {
			t.Errorf("without a route: %v", found)
		}
		opened("tap0", "tap1", "tun0")
		check(t, netlink.RouteAdd(to("10.244.1.5/32", tap, "")))
		want := map[netip.Addr]inet.Path{addr: {Index: tap, Link: "tap0"}}
		if diff := cmp.Diff(want, find()); diff != "" {
			t.Errorf("paths (-want +got):\n%s", diff)
		}
		opened("tun0")
		if diff := cmp.Diff([]string{"tap1"}, l.WithoutPod()); diff != "" {
			t.Errorf("interfaces without a pod (-want +got):\n%s", diff)
		}
	})
}
