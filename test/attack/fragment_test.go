// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// split cuts a packet in two fragments; at counts from the end of the IP header
// and is a multiple of 8.
func split(p packet.Packet, id uint16, at int) (first, later []byte) {
	whole := p.Bytes()
	if p.Dst.Is4() {
		head, body := whole[:20], whole[20:]
		return fragment4(head, body[:at], id, 1<<13), fragment4(head, body[at:], id, uint16(at/8))
	}
	head, body := whole[:40], whole[40:]
	return fragment6(head, body[:at], id, 1), fragment6(head, body[at:], id, uint16(at))
}

func fragment4(head, body []byte, id, place uint16) []byte {
	h := bytes.Clone(head)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], place)
	return append(h, body...) // the kernel writes the header's checksum
}

// fragment6 puts a fragment header (RFC 8200, 4.5) between the two.
func fragment6(head, body []byte, id, place uint16) []byte {
	h := bytes.Clone(head)
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(body)))
	h = append(h, h[6], 0, 0, 0, 0, 0, 0, 0)
	h[6] = 44
	binary.BigEndian.PutUint16(h[42:], place)
	binary.BigEndian.PutUint16(h[46:], id)
	return append(h, body...)
}

// number derives an identification from a mark, which ends in a unique number.
func number(mark []byte) uint16 { return binary.BigEndian.Uint16(mark[len(mark)-2:]) }

// datagram is a UDP datagram in two fragments, each with a mark of its own.
func (w *world) datagram(t *testing.T, from, to string, v6 bool, port uint16) (first, later stage.Shot) {
	t.Helper()
	a, b := w.Marks.Next(), w.Marks.Next()
	p := packet.Packet{Src: w.Addr(t, from, v6), Dst: w.Addr(t, to, v6), Proto: packet.UDP, SrcPort: 4000, DstPort: port,
		Payload: append(bytes.Clone(a), b...)}
	one, two := split(p, number(p.Payload), 8+len(a))
	first = w.Bytes("first fragment", from, to, p.Dst, a, one)
	return first, w.Bytes("later fragment", from, to, p.Dst, b, two)
}

func TestFragmentsAreJudgedAsTheirDatagram(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, p := range [][2]string{{peer, victim}, {near, open}, {far, open}, {victim, yonder}} {
				first, later := w.datagram(t, p[0], p[1], v6, 80)
				w.Arrive(t, first, later)
				first, later = w.datagram(t, p[0], p[1], v6, 80)
				w.Arrive(t, later, first)
			}
			for _, p := range [][2]string{{near, victim}, {far, victim}, {jailed, open}, {jailed, yonder}} {
				counter := ruleset.CounterIngress
				if p[0] == jailed {
					counter = ruleset.CounterEgress
				}
				first, later := w.datagram(t, p[0], p[1], v6, 80)
				w.Stopped(t, stage.Drops{counter: 1}, first, later)
				first, later = w.datagram(t, p[0], p[1], v6, 80)
				w.Stopped(t, stage.Drops{counter: 1}, later, first)
			}
			first, later := w.datagram(t, peer, victim, v6, 81)
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 1}, first, later)
		})
	})
}

func TestAFragmentAloneNeverArrives(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			var alone []stage.Shot
			for _, from := range []string{near, peer, far} {
				first, _ := w.datagram(t, from, victim, v6, 80)
				_, later := w.datagram(t, from, victim, v6, 80)
				alone = append(alone, first, later)
			}
			w.Stopped(t, stage.Drops{}, alone...)
			first, later := w.datagram(t, peer, victim, v6, 80) // what comes behind them arrives
			w.Arrive(t, first, later)
			w.Stopped(t, stage.Drops{})
			for _, s := range alone {
				if w.Taps[victim].Saw(t, s.Mark) {
					t.Errorf("%s arrived", s.Name)
				}
			}
		})
	})
}

// The first fragment ends before the flags: a filter that reads single fragments sees no SYN. IPv6 forbids
// such fragments, so there it is invalid by itself.
func TestATinyFirstFragmentHidesNothing(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			counter := ruleset.CounterIngress
			if v6 && !w.Filter() {
				counter = ruleset.CounterInvalid
			}
			for i, from := range []string{near, far} {
				p := packet.Packet{Src: w.Addr(t, from, v6), Dst: w.Addr(t, victim, v6), Proto: packet.TCP, Flags: packet.SYN,
					SrcPort: 4100 + uint16(i), DstPort: 80, Window: 1000, Payload: w.Marks.Next()}
				one, two := split(p, number(p.Payload), 8)
				w.Stopped(t, stage.Drops{counter: 1}, w.Bytes("start of a SYN", from, victim, p.Dst, p.Payload, one),
					w.Bytes("rest of a SYN", from, victim, p.Dst, p.Payload, two))
			}
		})
	})
}
