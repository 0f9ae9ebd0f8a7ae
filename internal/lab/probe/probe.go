// SPDX-License-Identifier: Apache-2.0

// Package probe sends real packets between endpoints and sees where they
// arrive.
//
// Every probe carries a number of its own, so a packet is allowed when it
// arrived inside the destination's namespace, and denied when it did not and a
// drop counter says so; time alone decides nothing. No listeners are needed:
// the destination's kernel answers with a reset or an unreachable message. The
// package wires nothing and knows no policies; package lab makes the
// namespaces.
package probe

import (
	"encoding/binary"
	"net/netip"

	"github.com/podwall/podwall/internal/lab/packet"
)

// The marks by which a packet is recognised as a probe.
const (
	magicWindow = 0x7077     // TCP
	magicCredit = 0x00707764 // SCTP
	magicWord   = 0x70776c62 // first word of the UDP and ICMP payload
)

// Probe is one packet to send. TCP is a SYN and SCTP an INIT, so every probe
// is the first packet of a connection.
type Probe struct {
	// ID is not zero, and no other probe of the same Prober has it.
	ID    uint32
	Proto packet.Protocol
	// From is the name of the endpoint that sends.
	From string
	// Src is the source address. Unset, it is the endpoint's first address of
	// the family of Dst.
	Src netip.Addr
	Dst netip.Addr
	// SrcPort is chosen when zero, each time another one: a port used before
	// may still have an entry in some connection table. ICMP has no ports.
	SrcPort, DstPort uint16
}

// Arrival says that a probe was seen inside the namespace of an endpoint, with
// the addresses and ports that it had there.
type Arrival struct {
	ID       uint32
	Endpoint string
	Proto    packet.Protocol
	Src, Dst netip.AddrPort
}

// Reply says that the answer to a probe was seen at its source.
type Reply struct {
	ID   uint32
	Kind ReplyKind
	// Endpoint is where the answer was seen; From who sent it.
	Endpoint string
	From     netip.Addr
}

// ReplyKind is what a probe was answered with.
type ReplyKind uint8

// The answers. Refused is what a destination without a listener sends: TCP
// reset, port or protocol unreachable, SCTP abort. Prohibited and NoRoute come
// from something on the way.
const (
	Accepted ReplyKind = iota + 1
	Refused
	Echoed
	Prohibited
	NoRoute
)

// String returns the answer as one word.
func (k ReplyKind) String() string {
	if k < Accepted || k > NoRoute {
		return "invalid"
	}
	return [...]string{"accepted", "refused", "echoed", "prohibited", "no route"}[k-1]
}

// Packet returns the packet of a probe whose Src and SrcPort are set.
func (p Probe) Packet() packet.Packet {
	out := packet.Packet{Src: p.Src, Dst: p.Dst, Proto: p.Proto, SrcPort: p.SrcPort, DstPort: p.DstPort, Seq: p.ID}
	switch p.Proto {
	case packet.TCP:
		out.Flags, out.Window = packet.SYN, magicWindow
	case packet.SCTP:
		out.Credit = magicCredit
	case packet.ICMP:
		// Connection tracking tells echo flows apart by the identifier.
		out.SrcPort, out.DstPort = uint16(p.ID), uint16(p.ID>>16)
	}
	if p.Proto == packet.UDP || p.Proto == packet.ICMP {
		out.Payload = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, magicWord), p.ID)
	}
	return out
}

// probeID returns the number of a probe that travels towards its destination,
// or zero.
func probeID(p packet.Packet, kind packet.Kind) uint32 {
	switch {
	case p.Proto == packet.TCP && p.Flags == packet.SYN && p.Window == magicWindow:
		return p.Seq
	case p.Proto == packet.SCTP && kind.Type == 1 && p.Credit == magicCredit:
		return p.Seq
	case p.Proto == packet.UDP, p.Proto == packet.ICMP && isEcho(p, kind):
		return payloadID(p.Payload)
	}
	return 0
}

func isEcho(p packet.Packet, kind packet.Kind) bool {
	return p.Dst.Is4() && kind.Type == 8 || p.Dst.Is6() && kind.Type == 128
}

func payloadID(b []byte) uint32 {
	if len(b) < 8 || binary.BigEndian.Uint32(b) != magicWord {
		return 0
	}
	return binary.BigEndian.Uint32(b[4:])
}

// reply reads an answer. Its number is not yet known to be that of a probe:
// TCP resets and SCTP aborts have no mark of their own.
func reply(p packet.Packet, kind packet.Kind) (id uint32, answer ReplyKind) {
	switch p.Proto {
	case packet.TCP:
		if p.Flags&packet.RST != 0 {
			return p.Ack - 1, Refused
		}
		if p.Flags == packet.SYN|packet.ACK {
			return p.Ack - 1, Accepted
		}
	case packet.SCTP:
		switch kind.Type {
		case 2:
			return p.Ack, Accepted
		case 6:
			return p.Ack, Refused
		}
	case packet.ICMP:
		return icmpReply(p, kind)
	}
	return 0, 0
}

func icmpReply(p packet.Packet, kind packet.Kind) (uint32, ReplyKind) {
	answer := icmpKind(p.Dst.Is6(), kind)
	if answer == 0 {
		return 0, 0
	}
	if answer == Echoed {
		return payloadID(p.Payload), answer
	}
	quoted, quotedKind, ok := packet.Parse(p.Payload)
	if !ok {
		return 0, 0
	}
	return probeID(quoted, quotedKind), answer
}

func icmpKind(v6 bool, k packet.Kind) ReplyKind {
	if v6 {
		switch k {
		case packet.Kind{Type: 129}:
			return Echoed
		case packet.Kind{Type: 1, Code: 4}, packet.Kind{Type: 4, Code: 1}:
			return Refused
		case packet.Kind{Type: 1, Code: 1}, packet.Kind{Type: 1, Code: 5}:
			return Prohibited
		}
		if k.Type == 1 {
			return NoRoute
		}
		return 0
	}
	switch k {
	case packet.Kind{Type: 0}:
		return Echoed
	case packet.Kind{Type: 3, Code: 2}, packet.Kind{Type: 3, Code: 3}:
		return Refused
	case packet.Kind{Type: 3, Code: 9}, packet.Kind{Type: 3, Code: 10}, packet.Kind{Type: 3, Code: 13}:
		return Prohibited
	}
	if k.Type == 3 {
		return NoRoute
	}
	return 0
}
