// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"bufio"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/nft"
	"github.com/podwall/podwall/internal/trial"
)

// message builds an ICMP or ICMPv6 packet of any type; rest are the four bytes
// behind the checksum.
func message(src, dst netip.Addr, kind, code, hops uint8, rest uint32, body []byte) []byte {
	m := append([]byte{kind, code, 0, 0}, binary.BigEndian.AppendUint32(nil, rest)...)
	m = append(m, body...)
	sum := uint32(0)
	if dst.Is6() {
		sum = words(words(uint32(len(m))+unix.IPPROTO_ICMPV6, src.AsSlice()), dst.AsSlice())
	}
	for sum = words(sum, m); sum > 0xffff; {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return ip(src, dst, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, hops, m)
}

// ip puts an IP header before a body; proto4 and proto6 are the protocol of
// each family.
func ip(src, dst netip.Addr, proto4, proto6, hops uint8, body []byte) []byte {
	if dst.Is4() {
		h := make([]byte, 20, 20+len(body))
		h[0], h[8], h[9] = 0x45, hops, proto4
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		sum := words(0, h)
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum>>16+sum&0xffff))
		return append(h, body...)
	}
	h := make([]byte, 40, 40+len(body))
	h[0], h[6], h[7] = 0x60, proto6, hops
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, body...)
}

func words(sum uint32, b []byte) uint32 {
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	return sum
}

// tooBig is a router's complaint about a UDP packet that to has sent.
func (w *world) tooBig(t *testing.T, from, to string, about packet.Packet) shot {
	t.Helper()
	m := mark()
	about.Payload = m
	kind, code := uint8(3), uint8(4)
	if about.Dst.Is6() {
		kind, code = 2, 0
	}
	src := w.addr(t, from, about.Dst.Is6())
	b := message(src, about.Src, kind, code, 64, 1400, about.Bytes())
	return w.bytes("too big", from, to, packet.Packet{Dst: about.Src, Payload: m}, b)
}

func TestErrorsOfAllowedConnectionsPassAndOthersDoNot(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		counter := nft.CounterGuard
		if w.filter() {
			counter = nft.CounterIngress
		}
		families(t, func(t *testing.T, v6 bool) {
			flow := packet.Packet{Src: w.addr(t, victim, v6), Dst: w.addr(t, out, v6), Proto: packet.UDP, SrcPort: 5555, DstPort: 7000}
			w.one(t, probe.Probe{From: victim, Dst: flow.Dst, Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort})
			w.arrive(t, w.tooBig(t, out, victim, flow))
			flow.SrcPort++ // no such connection
			w.stopped(t, drops{counter: 3}, w.tooBig(t, out, victim, flow), w.tooBig(t, near, victim, flow), w.tooBig(t, far, victim, flow))
		})
	})
}

func TestEchoToAnIsolatedPodIsDenied(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		families(t, func(t *testing.T, v6 bool) {
			echo := func(from, to string) trial.Question { return w.ask(t, from, to, v6, packet.ICMP, 0) }
			w.denied(t, nft.CounterIngress, echo(near, victim), echo(far, victim), echo(peer, victim), echo(out, victim))
			w.denied(t, nft.CounterEgress, echo(jailed, open), echo(jailed, yonder), echo(jailed, out), echo(jailed, node1))
			w.allowed(t, echo(node1, victim), echo(node1, jailed), echo(near, jailed), echo(victim, out), echo(near, open))
		})
	})
}

// Everything of the shop is closed but for one way, and nobody remembers
// anybody's hardware address.
func TestNeighboursAreFoundUnderDenyAll(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		families(t, func(t *testing.T, v6 bool) {
			w.allowed(t, w.ask(t, peer, victim, v6, packet.TCP, 80), w.ask(t, node1, victim, v6, packet.TCP, 80), w.ask(t, victim, node1, v6, packet.TCP, 80))
		})
		w.apply(t, policy("all", "", `policyTypes: [Ingress, Egress]`),
			policy("in", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: 80}]}]`),
			policy("out", "peer", `policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: victim}}}]}]`))
		for _, name := range []string{victim, peer, node1} {
			w.forget(t, name)
		}
		families(t, func(t *testing.T, v6 bool) {
			w.allowed(t, w.ask(t, peer, victim, v6, packet.TCP, 80))
			w.denied(t, nft.CounterIngress, w.ask(t, near, victim, v6, packet.TCP, 80))
		})
		families(t, func(t *testing.T, v6 bool) {
			w.allowed(t, w.ask(t, node1, victim, v6, packet.TCP, 80), w.ask(t, node1, jailed, v6, packet.UDP, 81))
		})
	})
}

// forget removes the neighbours that an endpoint has learned.
func (w *world) forget(t *testing.T, name string) {
	t.Helper()
	h := w.handle(t, name)
	list, err := h.NeighList(0, netlink.FAMILY_ALL)
	check(t, err)
	removed := 0
	for _, n := range list {
		if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 && len(n.HardwareAddr) == 6 && n.Family != unix.AF_BRIDGE {
			check(t, h.NeighDel(&n))
			removed++
		}
	}
	if removed == 0 && w.wiring == lab.Bridge {
		t.Fatalf("%s knew nobody: nothing is tested", name)
	}
}

func TestMulticastListenerReportsOfAClosedPodReachTheNode(t *testing.T) {
	const count = "Icmp6InGroupMembResponses"
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		from, all := w.podLocal(t, jailed), netip.MustParseAddr("ff02::2") // which routers listen to
		b := message(from.addr, all, 131, 0, 1, 0, all.AsSlice())
		frame := packet.Ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}, w.Prober().HardwareAddr(jailed), nil, b)
		before := w.statistic(t, node1, count)
		check(t, w.Prober().SendFrame(jailed, frame))
		for end := time.Now().Add(patience); w.statistic(t, node1, count) == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the node did not take the report")
			}
		}
	})
}

// statistic reads one of an endpoint's IPv6 counters.
func (w *world) statistic(t *testing.T, name, field string) (n uint64) {
	t.Helper()
	check(t, w.ns(t, name).Do(func() error {
		f, err := os.Open("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == field {
				n, err = strconv.ParseUint(f[1], 10, 64)
				return err
			}
		}
		return os.ErrNotExist
	}))
	return n
}
