// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
)

// A pod is deleted, and a new one that accepts no traffic gets its address. The clients of the first keep
// talking: none of their packets may enter the second.
func TestTheNextPodWithAnAddressGetsNothingMeantForTheLast(t *testing.T) {
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(wiring), func(t *testing.T) {
			for _, gap := range []bool{true, false} {
				name := map[bool]string{true: "after-it-was-free", false: "at-once"}[gap]
				t.Run(name, func(t *testing.T) { newWorld(t, wiring).handOver(t, gap) })
			}
		})
	}
}

func (w *world) handOver(t *testing.T, gap bool) {
	closed := policy("next", `policyTypes: [Ingress]`)
	w.apply(t, closed)
	h := listen(t, w.ns(t, server), serverPort, w.actors[0].addrs()...)
	list := w.everyTalk(t, h)
	await(t, list)

	w.taps[server].close()
	h.endServer()
	all := w.actors
	if gap {
		w.actors = all[1:]
		w.apply(t, closed)
		w.gone(t, all[0])
	}
	next := all[0]
	next.name, next.role = "next", "next"
	w.actors = append([]actor{next}, all[1:]...)
	w.apply(t, closed)
	w.forget(t, all[0])
	after := newTap(t, w.ns(t, "next"))
	w.taps["next"] = after
	time.Sleep(quiet())
	h.end()
	for _, a := range all[1:] {
		for _, addr := range a.addrs() {
			for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
				if n := after.total(proto, addr); n > 0 {
					t.Errorf("%d packets (%s) from %s entered the next pod", n, proto, addr)
				}
			}
		}
	}
	w.openTo(t, after)
}

// gone returns when the connections of a deleted pod are deleted.
func (w *world) gone(t *testing.T, a actor) {
	t.Helper()
	var c *conntrack.Conn
	check(t, w.Bed().Node(a.node).NS.Do(func() (err error) {
		c, err = conntrack.Open()
		return err
	}))
	defer c.Close()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, addr := range a.addrs() {
			check(t, c.DumpAddress(addr, func(*inet.Connection) { left++ }))
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections of a pod that is gone are left", left)
		}
	}
}

// forget makes the node drop the packets that wait for the pod's hardware address: they already got their
// verdict, and reach the next owner of the address within three seconds.
func (w *world) forget(t *testing.T, a actor) {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(w.Bed().Node(a.node).NS.FD()))
	check(t, err)
	defer h.Close()
	list, err := h.NeighList(0, 0)
	check(t, err)
	for _, n := range list {
		ip, ok := netip.AddrFromSlice(n.IP)
		if waiting := n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) != 0; ok && waiting &&
			slices.Contains(a.addrs(), ip.Unmap()) {
			check(t, h.NeighDel(&n))
		}
	}
}

// openTo makes sure that the tap works.
func (w *world) openTo(t *testing.T, p *tap) {
	t.Helper()
	w.apply(t)
	h := listen(t, w.ns(t, "next"), serverPort, w.actors[0].addrs()...)
	defer h.end()
	k := h.call(t, w.ns(t, near), packet.UDP, w.port(w.actors[1], false),
		netip.AddrPortFrom(w.actors[0].addr(false), serverPort))
	await(t, []*talk{k})
	if p.total(packet.UDP, k.client.Addr()) == 0 {
		t.Error("the tap of the next pod sees nothing at all")
	}
}
