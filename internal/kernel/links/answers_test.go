// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// Statuses of deleted pods cost nothing until routes change.
func TestWhatTheKernelSaidOfARouteIsRemembered(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		card, pod := pairTo(t, "card0", false), pairTo(t, "pod0", true)
		address(t, card, "172.30.0.11/24")
		check(t, netlink.RouteAdd(to("10.244.1.0/24", card, "172.30.0.1")))
		list := []string{"10.244.2.5", "fd00:244::5"} // without a route
		for i := range 50 {
			list = append(list, fmt.Sprintf("10.244.1.%d", i+1))
		}
		w := observe(t, Options{Uplinks: []string{"card*"}}, list...)
		out := netip.MustParseAddr("10.244.1.5")
		asked := func() int {
			before := w.routes.lookups
			w.find(t)
			for _, p := range w.pods {
				w.Elsewhere(p.Addr)
			}
			return w.routes.lookups - before
		}
		if asked(); asked() != 0 {
			t.Error("the kernel was asked again for the same pods")
		}
		if !w.Elsewhere(out) || w.Elsewhere(w.pods[0].Addr) {
			t.Error("a gateway leads elsewhere, and no route leads nowhere")
		}
		check(t, netlink.RouteAdd(to("10.244.1.5/32", pod, "")))
		w.woken(t, "a route to a pod")
		if got := asked(); got < len(list) {
			t.Errorf("after a change the kernel was asked %d times, want at least %d", got, len(list))
		}
		if p, ok := w.find(t)[out]; !ok || p.Link != "pod0" {
			t.Errorf("the new route leads to %v, %t", p, ok)
		}
		all := w.pods
		w.pods = nil
		w.find(t) // no watch sees changes in the meantime
		if w.pods = all; asked() < len(list)-1 {
			t.Error("what was not wanted for a while is remembered")
		}
	})
}

// Without a subscription an answer may be outdated.
func TestWithoutAWatchNoAnswerIsRemembered(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pod := pairTo(t, "pod0", true)
		l, pods := New(Options{}), []Pod{{Addr: netip.MustParseAddr("10.244.1.5"), Name: "a/a"}}
		_, err := l.Find(t.Context(), pods)
		check(t, err)
		check(t, netlink.RouteAdd(to("10.244.1.5/32", pod, "")))
		if found, err := l.Find(t.Context(), pods); err != nil || len(found) != 1 {
			t.Errorf("found is %v, %v, want the path", found, err)
		}
	})
}
