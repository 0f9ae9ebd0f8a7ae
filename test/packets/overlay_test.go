// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// tunnelEnd is a node's VXLAN link. The addresses on it are those by which the
// other node sends to its pods.
type tunnelEnd struct {
	node  string
	outer netip.Addr
	mac   net.HardwareAddr
	inner []netip.Addr
}

// overlay carries the traffic between pods of different nodes in VXLAN.
func (w *world) overlay(t *testing.T) {
	t.Helper()
	ends := []tunnelEnd{
		{node1, w.Addr(t, node1, false), net.HardwareAddr{2, 0x78, 0, 0, 0, 1},
			[]netip.Addr{netip.MustParseAddr("10.244.1.0"), netip.MustParseAddr("fd00:244:1::ffff")}},
		{node2, w.Addr(t, node2, false), net.HardwareAddr{2, 0x78, 0, 0, 0, 2},
			[]netip.Addr{netip.MustParseAddr("10.244.2.0"), netip.MustParseAddr("fd00:244:2::ffff")}},
	}
	for i, own := range ends {
		h, other := w.Handle(t, own.node), ends[1-i]
		stage.Check(t, h.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0", HardwareAddr: own.mac,
			Flags: net.FlagUp},
			VxlanId: 1, Port: 4789, SrcAddr: own.outer.AsSlice()}))
		link, err := h.LinkByName("vxlan0")
		stage.Check(t, err)
		at := link.Attrs().Index
		stage.Check(t, h.NeighAppend(&netlink.Neigh{LinkIndex: at, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT,
			Flags: netlink.NTF_SELF, IP: other.outer.AsSlice(), HardwareAddr: other.mac}))
		for _, via := range other.inner {
			stage.Check(t, h.NeighSet(&netlink.Neigh{LinkIndex: at, State: netlink.NUD_PERMANENT, IP: via.AsSlice(),
				HardwareAddr: other.mac}))
		}
		for _, a := range stage.Cast() {
			if a.Node != other.node {
				continue
			}
			for k, dst := range []netip.Addr{a.V4, a.V6} {
				stage.Check(t, h.RouteReplace(&netlink.Route{LinkIndex: at, Dst: single(dst), Gw: other.inner[k].AsSlice(),
					Flags: int(netlink.FLAG_ONLINK)}))
			}
		}
	}
}

// carried is the number of packets that a node received from the tunnel.
func (w *world) carried(t *testing.T, node string) uint64 {
	t.Helper()
	_, link := w.link(t, node, "vxlan0")
	return link.Attrs().Statistics.RxPackets
}

func TestPodTrafficInAnOverlayIsJudgedByItsInnerAddresses(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		w.overlay(t)
		w.Enforce(t, stage.Usual()[1], stage.Policy("far", "victim",
			`policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: far}}}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			into, outOf := w.carried(t, node1), w.carried(t, node2)
			for _, proto := range packet.Protocols {
				w.Allowed(t, w.Ask(t, far, victim, v6, proto, 80), w.Ask(t, near, yonder, v6, proto, 80),
					w.Ask(t, victim, yonder, v6, proto, 80))
				w.Denied(t, ruleset.CounterIngress, w.Ask(t, yonder, victim, v6, proto, 80)) // once, as the counter says
				w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, yonder, v6, proto, 80))
			}
			// four questions of far's and yonder's each, and answers to the eight of node1's pods
			if got := w.carried(t, node1) - into; got < 16 {
				t.Errorf("node1 got %d packets out of the tunnel, want 16 and more", got)
			}
			if got := w.carried(t, node2) - outOf; got < 12 {
				t.Errorf("node2 got %d packets out of the tunnel, want 12 and more", got)
			}
		})
		// A peer that may reach the pod by its node's address may not reach it through the tunnel.
		w.Enforce(t, stage.Policy("node2", "victim", `policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 172.30.0.12/32}}, {ipBlock: {cidr: "fd00:172:30::12/128"}}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Denied(t, ruleset.CounterIngress, w.Ask(t, far, victim, v6, packet.TCP, 80))
		})
	})
}
