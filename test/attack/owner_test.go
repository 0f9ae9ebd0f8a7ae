// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The attackers here may change their own interface (CAP_NET_ADMIN).

// takeAll gives a pod the addresses of others.
func (w *world) takeAll(t *testing.T, pod string, addrs ...netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		w.take(t, pod, a)
	}
}

// giveUp removes an address from a pod.
func (w *world) giveUp(t *testing.T, pod string, a netip.Addr) {
	t.Helper()
	h := w.Handle(t, pod)
	link, err := h.LinkByName("eth0")
	stage.Check(t, err)
	list, err := h.AddrList(link, netlink.FAMILY_ALL)
	stage.Check(t, err)
	for _, addr := range list {
		if ip, ok := netip.AddrFromSlice(addr.IP); ok && ip.Unmap() == a {
			stage.Check(t, h.AddrDel(link, &addr))
		}
	}
}

// owns wants only the pod, and no attacker that claims its address, to reach the victim as the allowed
// peer.
func (w *world) owns(t *testing.T, attackers ...string) {
	t.Helper()
	stage.Families(t, func(t *testing.T, v6 bool) {
		as := w.Addr(t, peer, v6)
		for _, from := range attackers {
			if w.reaches(t, from, as, victim) {
				t.Errorf("%s as %s reaches the victim", from, as)
			}
		}
		w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, node1, peer, v6, packet.TCP, 80))
	})
}

func TestAPodThatTakesItsNeighboursAddressesBecomesNobodyElse(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		stolen := []netip.Addr{w.Addr(t, peer, false), w.Addr(t, peer, true), w.Addr(t, victim, false), w.Addr(t, victim, true)}
		w.takeAll(t, near, stolen...)
		w.owns(t, near)
		t.Run("after the agent was started again", func(t *testing.T) {
			stage.Check(t, w.Restart(t.Context(), node1, func() error { return nil }))
			w.owns(t, near)
		})
		t.Run("after its interface moved to a nested namespace", func(t *testing.T) {
			nested := w.nest(t, near)
			w.Enforce(t, append(stage.Usual(), stage.Policy("other", "open", `policyTypes: [Ingress]`))...) // one more pass
			w.nestedGainsNothing(t, nested)
			t.Run("and the agent was started again", func(t *testing.T) {
				stage.Check(t, w.Restart(t.Context(), node1, func() error { return nil }))
				w.nestedGainsNothing(t, nested)
			})
		})
	})
}

// nestedGainsNothing wants a pod whose interface is in a nested namespace not to be the peer.
func (w *world) nestedGainsNothing(t *testing.T, nested *netns.NS) {
	t.Helper()
	stage.Families(t, func(t *testing.T, v6 bool) {
		p := packet.Packet{Src: w.Addr(t, peer, v6), Dst: w.Addr(t, victim, v6), Proto: packet.TCP, Flags: packet.SYN,
			SrcPort: 999, DstPort: 80, Window: 1000, Payload: w.Marks.Next()}
		frame := packet.Ethernet(w.across(t, near, victim), w.Prober().HardwareAddr(near), nil, p.Bytes())
		stage.Check(t, nested.Do(func() error { return sendFrame("eth0", frame) }))
		w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80))
		if time.Sleep(stage.Grace); w.Taps[victim].Saw(t, p.Payload) {
			t.Errorf("%s as %s reaches the victim", near, p.Src)
		}
	})
}

// nest moves a pod's interface into another namespace of the pod, and returns that.
func (w *world) nest(t *testing.T, pod string) *netns.NS {
	t.Helper()
	nested, err := netns.New()
	stage.Check(t, err)
	t.Cleanup(func() { stage.Check(t, nested.Close()) })
	h := w.Handle(t, pod)
	link, err := h.LinkByName("eth0")
	stage.Check(t, err)
	addrs, err := h.AddrList(link, netlink.FAMILY_V4)
	stage.Check(t, err)
	stage.Check(t, h.LinkSetNsFd(link, nested.FD()))
	inside, err := netlink.NewHandleAt(vnetns.NsHandle(nested.FD()))
	stage.Check(t, err)
	defer inside.Close()
	link, err = inside.LinkByName("eth0")
	stage.Check(t, err)
	for _, a := range addrs {
		stage.Check(t, inside.AddrAdd(link, &netlink.Addr{IPNet: a.IPNet}))
	}
	stage.Check(t, inside.LinkSetUp(link))
	return nested
}

// A neighbour takes the addresses of the newcomer before it starts. The victim admits the newcomer, so its
// address is worth taking.
func TestAPodThatTakesTheAddressesOfPodsToComeBecomesNoneOfThem(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		w.takeAll(t, near, newcomerAddrs()...)
		w.wireNewcomer(t)
		w.Enforce(t, append(stage.Usual(), comersWelcome()...)...)
		w.comes(t)
		stage.Check(t, w.Restart(t.Context(), node1, func() error { return nil }))
		w.comes(t)
	})
}

// comes wants the newcomer, and not the pod that took its addresses, to reach the victim.
func (w *world) comes(t *testing.T) {
	t.Helper()
	stage.Families(t, func(t *testing.T, v6 bool) {
		as := newcomerAddr(v6)
		if w.reaches(t, near, as, victim) {
			t.Errorf("%s as %s reaches the victim", near, as)
		}
		q := w.Ask(t, newcomer, victim, v6, packet.TCP, 80)
		q.Src = as
		w.Allowed(t, q)
	})
}

func comersWelcome() []string {
	return []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n",
		strings.ReplaceAll(lateObject(newcomerAddrs()...), "late", "comer"),
		stage.Policy("comers", "victim", `policyTypes: [Ingress], `+
			`ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: comer}}}]}]`)}
}

// While no agent runs, a pod gives up its own address for that of another, which the table does not know
// yet. Two ports of a bridge now have the address, so neither is accepted until the runtime announces one.
// Where pods are routed, it is that of the pod to which the route leads.
func TestOfTwoPodsThatClaimOneAddressNeitherHasIt(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		const attacker = "new/thief"
		var real *lab.Endpoint
		stage.Check(t, w.Restart(t.Context(), node1, func() error {
			own := netip.MustParseAddr("10.244.1.201")
			w.wire(t, attacker, own)
			w.giveUp(t, attacker, own)
			w.takeAll(t, attacker, newcomerAddrs()...)
			real = w.wire(t, newcomer, newcomerAddrs()...)
			return nil
		}))
		w.Enforce(t, append(stage.Usual(), comersWelcome()...)...)
		stage.Families(t, func(t *testing.T, v6 bool) {
			as := newcomerAddr(v6)
			if w.reaches(t, attacker, as, victim) {
				t.Errorf("%s reaches the victim, though two pods claim %s", attacker, as)
			}
			if got, want := w.reaches(t, newcomer, as, victim), w.Wiring != lab.Bridge; got != want {
				t.Errorf("%s, the same address, reaches the victim: %t, want %t", newcomer, got, want)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), stage.Patience)
		defer cancel()
		client := gate.Client{Socket: w.Gate(node1)}
		reply, err := client.Add(ctx, gate.Pod{Sandbox: "s", Namespace: "new", Name: "comer", UID: "comer",
			IPs: newcomerAddrs(), Links: []string{real.HostDevice}})
		stage.Check(t, err)
		if reply.State != gate.Enforced {
			t.Fatalf("the agent answers %s: %s", reply.State, reply.Text)
		}
		stage.Families(t, func(t *testing.T, v6 bool) {
			as := newcomerAddr(v6)
			if w.reaches(t, attacker, as, victim) {
				t.Errorf("%s reaches the victim", attacker)
			}
			// It may have given up resolving the victim's address.
			if !stage.Becomes(func() bool { return w.passes(t, newcomer, as, w.Addr(t, victim, v6)) }) {
				t.Errorf("%s, which the runtime announced, does not reach the victim", newcomer)
			}
		})
	})
}

// sendFrame sends a frame that a neighbour crafted.
func (w *world) sendFrame(t *testing.T, from string, dst, src net.HardwareAddr, etherType uint16, body []byte) {
	t.Helper()
	b := append(append(net.HardwareAddr{}, dst...), src...)
	b = append(b, byte(etherType>>8), byte(etherType))
	stage.Check(t, w.Prober().SendFrame(from, append(b, body...)))
}

// arp is an ARP announcement or request (RFC 826).
func arp(op byte, sender net.HardwareAddr, ip netip.Addr, target net.HardwareAddr, of netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, sender...), ip.AsSlice()...)
	return append(append(b, target...), of.AsSlice()...)
}

// announce makes a neighbour announce, in every way, that an address is at its own interface.
func (w *world) announce(t *testing.T, from, to string, a netip.Addr) {
	t.Helper()
	own, dst := w.Prober().HardwareAddr(from), w.across(t, from, to)
	if a.Is4() {
		for _, hw := range []net.HardwareAddr{dst, broadcast} {
			w.sendFrame(t, from, hw, own, 0x0806, arp(2, own, a, dst, w.Addr(t, to, false)))
			w.sendFrame(t, from, hw, own, 0x0806, arp(1, own, a, dst, w.Addr(t, to, false)))
			w.sendFrame(t, from, hw, own, 0x0806, arp(2, own, a, hw, a)) // gratuitous
			tagged := append([]byte{0, 0, 0x08, 0x06}, arp(2, own, a, dst, w.Addr(t, to, false))...)
			w.sendFrame(t, from, hw, own, 0x8100, tagged)
		}
		return
	}
	const override = 1 << 29
	option := append([]byte{2, 1}, own...) // target's link-layer address
	for _, src := range []netip.Addr{w.Addr(t, from, true), a} {
		advert := stage.ICMP(src, w.Addr(t, to, true), 136, 0, 255, override, append(a.AsSlice(), option...))
		w.sendFrame(t, from, dst, own, 0x86dd, advert)
		all := stage.ICMP(src, netip.MustParseAddr("ff02::1"), 136, 0, 255, override, append(a.AsSlice(), option...))
		w.sendFrame(t, from, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, own, 0x86dd, all)
	}
	option[0] = 1 // source's
	question := stage.ICMP(a, w.Addr(t, to, true), 135, 0, 255, 0, append(w.Addr(t, to, true).AsSlice(), option...))
	w.sendFrame(t, from, dst, own, 0x86dd, question)
}

// neighbourOf returns the hardware address that an endpoint has cached for an address, on the interface by
// which it sends to it; nil for none.
func (w *world) neighbourOf(t *testing.T, endpoint string, a netip.Addr) net.HardwareAddr {
	t.Helper()
	h := w.Handle(t, endpoint)
	routes, err := h.RouteGet(a.AsSlice())
	stage.Check(t, err)
	list, err := h.NeighList(routes[0].LinkIndex, netlink.FAMILY_ALL)
	stage.Check(t, err)
	for _, n := range list {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a && n.State != netlink.NUD_FAILED {
			return n.HardwareAddr
		}
	}
	return nil
}

// Packets to a pod reach that pod, whatever a neighbour announces. An announcement needs only CAP_NET_RAW.
func TestAnAnnouncementBringsNobodyAnothersPackets(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		onLink := []string{peer, node1}
		if w.Wiring != lab.Bridge {
			onLink = onLink[1:] // a pod's link has no other end
		}
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, node1, victim, v6, packet.TCP, 80))
			for _, who := range onLink {
				w.announce(t, near, who, w.Addr(t, victim, v6))
			}
			w.Allowed(t, w.Ask(t, near, open, v6, packet.TCP, 80)) // behind them
			thief := w.Prober().HardwareAddr(near)
			for _, who := range onLink {
				if got := w.neighbourOf(t, who, w.Addr(t, victim, v6)); got.String() == thief.String() {
					t.Errorf("%s believes that the victim is at %s", who, near)
				}
			}
			w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, node1, victim, v6, packet.TCP, 80))
		})
	})
}

// A frame with a neighbour's hardware address as its source does not change the bridge's forwarding table. A
// node that routes does not read that address.
func TestAHardwareAddressStaysAtItsPort(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, node1, victim, v6, packet.TCP, 80))
			mark := w.Marks.Next()
			own := w.Addr(t, near, false)
			stolen := packet.Packet{Src: own, Dst: w.Addr(t, open, false), Proto: packet.UDP, SrcPort: 1, DstPort: 2, Payload: mark}
			for _, etherType := range []uint16{0x0800, 0x88b5} { // IPv4, and a type without a parser
				w.sendFrame(t, near, w.across(t, near, open), w.Prober().HardwareAddr(victim), etherType, stolen.Bytes())
			}
			for last := range byte(16) { // the bridge's reserved groups enter no chain
				group := net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, last}
				w.sendFrame(t, near, group, w.Prober().HardwareAddr(victim), 0x88cc, make([]byte, 46))
			}
			time.Sleep(stage.Grace)
			if w.learned(t, victim) == w.Endpoint(t, near).HostDevice {
				t.Errorf("the bridge believes that the victim is at the port of %s", near)
			}
			if w.Wiring == lab.Bridge && w.Taps[open].Saw(t, mark) {
				t.Errorf("a frame of %s with the victim's hardware address arrived", near)
			}
			w.Allowed(t, w.Ask(t, node1, victim, v6, packet.TCP, 80), w.Ask(t, peer, victim, v6, packet.TCP, 80))
		})
	})
}

// learned returns the port at which the first node's bridge has learned an endpoint.
func (w *world) learned(t *testing.T, endpoint string) string {
	t.Helper()
	h := w.Handle(t, node1)
	list, err := h.NeighList(0, unix.AF_BRIDGE)
	stage.Check(t, err)
	for _, n := range list {
		if n.HardwareAddr.String() == w.Prober().HardwareAddr(endpoint).String() && n.MasterIndex != 0 {
			link, err := h.LinkByIndex(n.LinkIndex)
			stage.Check(t, err)
			return link.Attrs().Name
		}
	}
	return ""
}

// With a router advertisement a pod would make its neighbours and its node send all their traffic to it. Where
// pods are routed the node is safe because the pod's interface accepts none, as plugins set it (known limits).
func TestNoPodIsARouter(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		w.wireNewcomer(t)
		if w.Wiring == lab.Bridge {
			stage.Check(t, w.NS(t, node1).SetSysctls([]netns.Sysctl{{Path: "ipv6/conf/" + lab.BridgeName + "/accept_ra", Value: "2"}}))
		}
		mark := w.Marks.Next()
		for _, pod := range []string{near, newcomer} {
			for _, kind := range []uint8{134, 137} {
				const hour = 64<<24 | 3600                                                           // the router's lifetime
				body := append(append(make([]byte, 8), 253, 3), append(mark, make([]byte, 6)...)...) // an option without a meaning
				b := stage.ICMP(w.podLocal(t, pod).addr, netip.MustParseAddr("ff02::1"), kind, 0, 255, hour, body)
				w.sendFrame(t, pod, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, w.Prober().HardwareAddr(pod), 0x86dd, b)
			}
		}
		time.Sleep(stage.Grace)
		for _, to := range []string{victim, open} {
			if w.Taps[to].Saw(t, mark) {
				t.Errorf("what only routers say arrived at %s", to)
			}
		}
		routes, err := w.Handle(t, node1).RouteList(nil, netlink.FAMILY_V6)
		stage.Check(t, err)
		for _, r := range routes {
			if r.Protocol == unix.RTPROT_RA || r.Protocol == unix.RTPROT_KERNEL && r.Gw != nil {
				t.Errorf("the node took a route from a pod: %s", r)
			}
		}
	})
}

// A pod that probes for an address (duplicate address detection) which another is about to use would keep
// that one from using it.
func TestNobodyClaimsAnothersAddressByAQuestion(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		own, mark := w.Prober().HardwareAddr(near), w.Marks.Next()
		probe := arp(1, own, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), w.Addr(t, victim, false))
		w.sendFrame(t, near, broadcast, own, 0x0806, append(probe, mark...))
		solicit := stage.ICMP(netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1"), 135, 0, 255, 0,
			append(w.Addr(t, victim, true).AsSlice(), mark...))
		w.sendFrame(t, near, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, own, 0x86dd, solicit)
		time.Sleep(stage.Grace)
		if n := w.Taps[victim].Count(t, mark); n > 0 {
			t.Errorf("%d of 2 questions arrived", n)
		}
	})
}

// An attacker that guesses all numbers of a connection still cannot inject a packet into it. Where pods are
// routed that is so where the node has a reverse-path filter (known limits).
func TestNobodySpeaksInAnothersConnection(t *testing.T) {
	eachOwner(t, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			flow := packet.Packet{Src: w.Addr(t, peer, v6), Dst: w.Addr(t, victim, v6), Proto: packet.UDP, SrcPort: 6000, DstPort: 80}
			w.One(t, probe.Probe{From: peer, Dst: flow.Dst, Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort})
			answer := packet.Packet{Dst: flow.Src, Proto: packet.UDP, SrcPort: flow.DstPort, DstPort: flow.SrcPort}
			w.Arrive(t, w.Raw(t, "the answer", victim, peer, answer), w.Raw(t, "the next packet", peer, victim, flow))
			if w.Wiring == lab.Bridge {
				w.Stopped(t, stage.Drops{ruleset.CounterSpoofedFrame: 1}, w.Raw(t, "a guess", near, victim, flow))
				return
			}
			w.Arrive(t, w.Raw(t, "a guess", near, victim, flow))
			w.filterReversePaths(t, node1, v6)
			w.Stopped(t, stage.Drops{}, w.Raw(t, "a guess", near, victim, flow))
			w.Arrive(t, w.Raw(t, "the next packet", peer, victim, flow))
		})
	})
}

// Packets that a pod needs on its own link pass: duplicate address detection, self-assigned addresses,
// requests.
func TestAPodKeepsItsLink(t *testing.T) {
	eachBridge(t, func(t *testing.T, w *world) {
		own, all := w.Prober().HardwareAddr(near), net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
		hosts := netip.MustParseAddr("ff02::1")
		free := netip.MustParseAddr("fd00:244:1::77")
		mark := func(b []byte) []byte { return append(b, w.Marks.Next()...) }
		before := w.Counters(t)

		for name, b := range map[string][]byte{
			"duplicate address detection":   stage.ICMP(netip.IPv6Unspecified(), hosts, 135, 0, 255, 0, mark(free.AsSlice())),
			"a question by its own address": stage.ICMP(w.Addr(t, near, true), hosts, 135, 0, 255, 0, mark(w.Addr(t, open, true).AsSlice())),
			"an advertisement of its own":   stage.ICMP(w.Addr(t, near, true), hosts, 136, 0, 255, 0, mark(w.Addr(t, near, true).AsSlice())),
			"a made-up address is advertised": stage.ICMP(netip.MustParseAddr("fe80::abcd"), hosts, 136, 0, 255, 0,
				mark(netip.MustParseAddr("fe80::abcd").AsSlice())),
		} {
			m := b[len(b)-16:]

			w.sendFrame(t, near, all, own, 0x86dd, b)
			if !w.Taps[open].Await(t, m) {
				t.Errorf("%s did not arrive", name)
			}
		}
		for name, b := range map[string][]byte{
			"a question":         arp(1, own, w.Addr(t, near, false), make(net.HardwareAddr, 6), w.Addr(t, open, false)),
			"is it free":         arp(1, own, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), netip.MustParseAddr("10.244.1.77")),
			"its own, announced": arp(2, own, w.Addr(t, near, false), broadcast, w.Addr(t, near, false)),
		} {
			m := w.Marks.Next()
			w.sendFrame(t, near, broadcast, own, 0x0806, append(b, m...))
			if !w.Taps[open].Await(t, m) {
				t.Errorf("ARP, %s: did not arrive", name)
			}
		}
		if moved := w.Quiet(stage.Drops{}, w.Since(t, before)); moved[ruleset.CounterSpoofedFrame] > 0 {
			t.Errorf("counters moved: %v", moved)
		}
	})
}
