// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// A list waits for the lock that every change of an interface on the machine holds, so a pass must not make one.
func TestTheAddressesOfTheNodeAreListedOnlyAfterAChange(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pod := pairTo(t, "pod0", true)
		address(t, pod, "172.30.0.11/24")
		w := observe(t, Options{})
		// A settled watch has heard of all earlier changes.
		has := func(a string) bool {
			t.Helper()
			w.settle(t)
			before := w.own.lists
			var found bool
			for range 50 {
				list, broadcasts, err := w.Addresses()
				check(t, err)
				found = slices.Contains(list, netip.MustParseAddr(a))
				if !slices.Contains(broadcasts, netip.MustParseAddr("172.30.0.255")) {
					t.Error("a broadcast address is missing")
				}
			}
			if lists := w.own.lists - before; lists > 1 {
				t.Errorf("50 questions without a change between them cost %d lists, want 1 at most", lists)
			}
			return found
		}
		if !has("172.30.0.11") || has("172.30.0.12") || has("fd00::12") {
			t.Error("the first list is wrong")
		}
		address(t, pod, "172.30.0.12/24")
		address(t, pod, "fd00::12/64")
		if !has("172.30.0.12") || !has("fd00::12") {
			t.Error("new addresses are missing")
		}
		a, err := netlink.ParseAddr("172.30.0.12/24")
		check(t, err)
		check(t, netlink.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: pod}}, a))
		if has("172.30.0.12") || !has("172.30.0.11") {
			t.Error("a deleted address is still listed, or another one is not")
		}
		before := w.own.lists
		w.renewed(w.wake)
		if has("172.30.0.12"); w.own.lists == before {
			t.Error("after a lost notification the old list counts")
		}
	})
}

func TestWithoutAWatchTheAddressesAreListedEachTime(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pod, l := pairTo(t, "pod0", true), New(Options{})
		for _, a := range []string{"172.30.0.11", "fd00::11"} {
			_, _, err := l.Addresses()
			check(t, err)
			address(t, pod, netip.PrefixFrom(netip.MustParseAddr(a), 24).String())
			if list, _, err := l.Addresses(); err != nil || !slices.Contains(list, netip.MustParseAddr(a)) {
				t.Errorf("listed are %v, %v, want %s among them", list, err, a)
			}
		}
	})
}

// A change that is heard of while the kernel lists may be missing in that list.
func TestAListIsNotKeptIfAnAddressChangedMeanwhile(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		var o own
		check(t, listAnd(&o, func() {}))
		if !o.known {
			t.Error("an undisturbed list is not kept")
		}
		o.forget()
		check(t, listAnd(&o, o.forget))
		if o.known {
			t.Error("a list that a change disturbed is kept")
		}
	})
}

func listAnd(o *own, meanwhile func()) error {
	_, err := o.list(true, func() ([]netlink.Addr, error) {
		meanwhile()
		return listAddresses()
	})
	return err
}
