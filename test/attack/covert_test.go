// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

func TestProtocolsThatPoliciesCannotNameAreDenied(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, p := range [][2]string{{near, victim}, {far, victim}, {jailed, open}, {jailed, yonder}} {
				counter := ruleset.CounterIngress
				if p[0] == jailed {
					counter = ruleset.CounterEgress
				}
				var list []stage.Shot
				for _, number := range []uint8{4, 41, 50, 97, 253} { // IPIP, 6in4, ESP, EtherIP, experiments
					m := w.Marks.Next()
					dst := w.Addr(t, p[1], v6)
					b := stage.IP(w.Addr(t, p[0], v6), dst, number, number, 64, m)
					list = append(list, w.Bytes(fmt.Sprintf("protocol %d", number), p[0], p[1], dst, m, b))
				}
				w.Stopped(t, stage.Drops{counter: uint64(len(list))}, list...)
			}
		})
	})
}

// The ports of a packet follow the extension headers and are not at a fixed offset.
func TestExtensionHeadersHideNothing(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		for _, header := range []uint8{0, 60, 43} { // hop-by-hop and destination options, routing
			behind := func(from, to string, port uint16) stage.Shot {
				p := packet.Packet{Src: w.Addr(t, from, true), Dst: w.Addr(t, to, true), Proto: packet.TCP, Flags: packet.SYN,
					SrcPort: 4300 + uint16(header), DstPort: port, Window: 1000, Payload: w.Marks.Next()}
				body := append([]byte{unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}, p.Bytes()[40:]...) // padding, 6 bytes
				return w.Bytes(fmt.Sprintf("SYN behind header %d", header), from, to, p.Dst, p.Payload, stage.IP(p.Src, p.Dst, 0, header, 64, body))
			}
			w.Arrive(t, behind(peer, victim, 80))
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 3}, behind(peer, victim, 81), behind(near, victim, 80), behind(far, victim, 80))
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 2}, behind(jailed, open, 80), behind(jailed, yonder, 80))
		}
	})
}

// Neighbour discovery is not tracked and must pass on a link, but a router must not forward it: its
// messages could carry anything.
func TestNeighbourDiscoveryIsNoTunnelBetweenNodes(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		for _, p := range [][2]string{{far, victim}, {jailed, yonder}} {
			counter := w.strayCounter(p[0])
			for _, hops := range []uint8{255, 64, 3} { // 3 become 1 on the way, as reports have
				var list []stage.Shot
				for _, kind := range discovery() {
					list = append(list, w.discover(t, p[0], p[1], true, kind, hops))
				}
				want := stage.Drops{counter: uint64(len(list))}
				if w.Wiring == lab.Bridge { // a router's, a redirect, and an advertisement of another's address
					want = stage.Drops{counter: uint64(len(list) - 3), ruleset.CounterSpoofedFrame: 3}
				}
				w.Stopped(t, want, list...)
			}
		}
	})
}

// discovery are the ICMPv6 types that connection tracking leaves alone.
func discovery() []uint8 { return []uint8{130, 131, 132, 133, 134, 135, 136, 137, 143} }

// discover is such a message to one address, with a payload. In IPv4 it is only an unknown protocol.
func (w *world) discover(t *testing.T, from, to string, v6 bool, kind, hops uint8) stage.Shot {
	t.Helper()
	m := w.Marks.Next()
	src, dst := w.Addr(t, from, v6), w.Addr(t, to, v6)
	b := stage.ICMP(src, dst, kind, 0, hops, 0, append(dst.AsSlice(), m...))
	if !v6 {
		b[9] = unix.IPPROTO_ICMPV6 // the kernel writes the header's checksum
	}
	return w.Bytes(fmt.Sprintf("ICMPv6 type %d", kind), from, to, dst, m, b)
}

func TestNeighbourDiscoveryOverIPv4IsNothingSpecial(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		for _, p := range paths() {
			counter := w.strayCounter(p[0])
			var list []stage.Shot
			for _, kind := range discovery() {
				list = append(list, w.discover(t, p[0], p[1], false, kind, 255))
			}
			w.Stopped(t, stage.Drops{counter: uint64(len(list))}, list...)
		}
		var list []stage.Shot
		for _, kind := range discovery() {
			s := w.discover(t, jailed, node1, false, kind, 255)
			s.To = open // a node has no tap: the counters are read
			list = append(list, s)
		}
		w.Stopped(t, stage.Drops{ruleset.CounterEgress: uint64(len(list))}, list...)
	})
}

// A bridge passes the same packet to its ports and to the node. A verdict for the node must not count for
// its pods, not for the second packet either.
//
// (Older kernels confirm the shared entry after the nat hook; there the second packet matters.)
func TestBroadcastsReachNoIsolatedPod(t *testing.T) {
	for _, d := range []string{"nat", "filter"} {
		t.Run(d, func(t *testing.T) {
			w := &world{stage.New(t, lab.Bridge, stage.Setup{Args: []string{"--datapath=" + d}})}
			w.Enforce(t)
			stage.Families(t, func(t *testing.T, v6 bool) { w.Arrive(t, w.flood(t, v6, 5000)...) })
			w.Enforce(t, stage.Usual()...)
			stage.Families(t, func(t *testing.T, v6 bool) {
				for _, port := range []uint16{5001, 5000} { // a new flow, and that from before
					if port == 5000 && !stage.Becomes(func() bool { return w.ends(t, v6, port) }) {
						t.Error("the flow from before goes on")
					}
					list := w.flood(t, v6, port)
					w.Stopped(t, stage.Drops{ruleset.CounterUnknownPod: uint64(len(list))}, list...)
				}
			})
		})
	}
}

// ends reports whether all packets of a flood are dropped.
func (w *world) ends(t *testing.T, v6 bool, port uint16) bool {
	t.Helper()
	before, list := w.Counters(t), w.flood(t, v6, port)
	stage.Fire(t, list)
	time.Sleep(stage.Grace)
	return w.Since(t, before)[ruleset.CounterUnknownPod] == uint64(len(list))
}

// flood is a flow of UDP packets to every group that reaches all pods of a bridge.
func (w *world) flood(t *testing.T, v6 bool, port uint16) []stage.Shot {
	t.Helper()
	groups := map[string]net.HardwareAddr{"255.255.255.255": {255, 255, 255, 255, 255, 255},
		"10.244.1.255": {255, 255, 255, 255, 255, 255}, "224.0.0.1": {1, 0, 0x5e, 0, 0, 1}}
	if v6 {
		groups = map[string]net.HardwareAddr{"ff02::1": {0x33, 0x33, 0, 0, 0, 1}}
	}
	var list []stage.Shot
	for group, mac := range groups {
		for i := range 4 {
			list = append(list, w.frame(t, fmt.Sprintf("UDP to %s, number %d,", group, i+1), near, victim, mac, nil,
				packet.Packet{Dst: netip.MustParseAddr(group), Proto: packet.UDP, SrcPort: port, DstPort: 6000, TTL: 1}))
		}
	}
	return list
}
