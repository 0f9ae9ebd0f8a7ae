// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// forged wants no packet with an address that its pod does not have to arrive. On a bridge the sender's ARP
// carries the address too, so the number of drops depends on the kernel.
func (w *world) forged(t *testing.T, list ...trial.Question) {
	t.Helper()
	if w.Wiring != lab.Bridge {
		w.Denied(t, ruleset.CounterSpoofed, list...)
		return
	}
	before := w.Counters(t)
	answers, err := w.Probe(t.Context(), list)
	stage.Check(t, err)
	for i, a := range answers {
		if a.Verdict == trial.Allowed {
			t.Errorf("%s: arrived", list[i])
		}
	}
	if moved := w.Quiet(stage.Drops{}, w.Since(t, before)); len(moved) != 1 || moved[ruleset.CounterSpoofedFrame] == 0 {
		t.Errorf("counters moved: %v, want only %s", moved, ruleset.CounterSpoofedFrame)
	}
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// take gives an endpoint one more address.
func (w *world) take(t *testing.T, name string, a netip.Addr) {
	t.Helper()
	h := w.Handle(t, name)
	link, err := h.LinkByName("eth0")
	stage.Check(t, err)
	addr := &netlink.Addr{IPNet: single(a)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	stage.Check(t, h.AddrAdd(link, addr))
}

// route adds a route to the address on a node: over one of its links, or through another node.
func (w *world) route(t *testing.T, node, device string, a netip.Addr, via netip.Addr) {
	t.Helper()
	h := w.Handle(t, node)
	link, err := h.LinkByName(device)
	stage.Check(t, err)
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(a), Scope: netlink.SCOPE_LINK}
	if via.IsValid() {
		r.Gw, r.Scope = via.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	stage.Check(t, h.RouteReplace(r))
}

func TestAPodThatMayNotSendGainsNothingByAnotherAddress(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			second := stage.Pick(v6, "fd00:244:1::99", "10.244.1.99")
			w.take(t, jailed, second)
			sources := []netip.Addr{second, stage.Pick(v6, "fd00:244:1::9a", "10.244.1.98"), // unassigned, of the pod's subnet
				stage.Pick(v6, "fd00:9::9", "10.9.9.9"), stage.Pick(v6, "2001:db8::9", "198.51.100.9")} // and of others
			for _, to := range []string{open, yonder, out, node1, node2} {
				var list []trial.Question
				for i, src := range sources {
					q := w.Ask(t, jailed, to, v6, []packet.Protocol{packet.TCP, packet.UDP, packet.ICMP, packet.SCTP}[i], 80)
					q.Src = src
					list = append(list, q)
				}
				w.forged(t, list...)
			}
		})
	})
}

func TestASecondAddressOfAClosedPodIsClosed(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			second := stage.Pick(v6, "fd00:244:1::77", "10.244.1.77")
			w.take(t, victim, second)
			if w.Wiring == lab.Routed {
				w.route(t, node1, w.Endpoint(t, victim).HostDevice, second, netip.Addr{})
			}
			w.route(t, node2, "eth0", second, w.Addr(t, node1, v6))
			ask := func(from string) trial.Question {
				return trial.Question{From: from, To: victim, Dst: second, Proto: packet.TCP, Port: 80}
			}
			if w.Wiring == lab.Bridge { // unreachable: the port may not announce it
				for _, from := range []string{near, peer, far, node1} {
					if w.passes(t, from, w.Addr(t, from, v6), second) {
						t.Errorf("%s reaches the address that %s gave itself", from, victim)
					}
				}
				return
			}
			w.Denied(t, ruleset.CounterUnknownPod, ask(near), ask(peer), ask(far))
			w.Allowed(t, ask(node1))
		})
	})
}
