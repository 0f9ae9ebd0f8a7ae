// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// A pod that is wired makes no other pod wait for the kernel's list of interfaces.
func TestAFindAfterAChangeListsNoInterfaces(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pairTo(t, "pod0", true)
		w := observe(t, Options{}, "10.244.1.5")
		w.settle(t)
		before := w.ahead.listings.Load()
		pod := pairTo(t, "pod1", true)
		check(t, netlink.RouteAdd(to("10.244.1.5/32", pod, "")))
		w.settle(t) // the watch has heard of all, and a Find was made
		if p, ok := w.find(t)[netip.MustParseAddr("10.244.1.5")]; !ok || p.Link != "pod1" {
			t.Errorf("the path is %+v, %t, want one by pod1", p, ok)
		}
		if n := w.ahead.listings.Load() - before; n > 0 {
			t.Errorf("%d lists of interfaces were made by Find, want none", n)
		}
	})
}

// The route of a pod may lead to an interface that the watch has not heard of yet.
func TestAnInterfaceThatIsNewerThanTheListIsFound(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pairTo(t, "pod0", true)
		l := New(Options{})
		old, err := netlink.LinkList()
		check(t, err)
		pod := pairTo(t, "pod1", true)
		check(t, netlink.RouteAdd(to("10.244.1.5/32", pod, "")))
		l.ahead.list.Store(&old)
		a := netip.MustParseAddr("10.244.1.5")
		found, err := l.Find(t.Context(), []Pod{{Addr: a, Name: "a/a"}})
		if p, ok := found[a]; err != nil || !ok || p.Link != "pod1" || l.ahead.listings.Load() != 1 {
			t.Errorf("the path is %+v, %t, %v after %d lists, want one by pod1 after one", p, ok, err,
				l.ahead.listings.Load())
		}
	})
}
