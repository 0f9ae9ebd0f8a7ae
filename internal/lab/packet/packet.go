// SPDX-License-Identifier: Apache-2.0

// Package packet builds and reads the few packets that the lab sends: IPv4 and
// IPv6 with TCP, UDP, SCTP or an ICMP echo, whole and with right checksums.
//
// It is pure: it knows no sockets and no namespaces. Packages probe and lab
// send what it builds.
package packet

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Protocol is an IP protocol number; ICMP stands for ICMPv6 too.
type Protocol uint8

// The protocols.
const (
	ICMP Protocol = 1
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132

	icmp6 = 58
)

// Protocols lists all protocols, in the order in which they are printed.
var Protocols = [...]Protocol{TCP, UDP, SCTP, ICMP}

// String returns tcp, udp, sctp or icmp.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "invalid"
}

func (p Protocol) number(v6 bool) byte {
	if p == ICMP && v6 {
		return icmp6
	}
	return byte(p)
}

// TCP flags.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Packet describes a packet. Fields that its protocol does not have are
// ignored.
type Packet struct {
	Src, Dst         netip.Addr // of one family
	Proto            Protocol
	SrcPort, DstPort uint16 // ICMP: identifier and sequence
	Flags            uint8  // TCP
	Seq, Ack         uint32 // TCP; Seq is the initiate tag of an SCTP INIT
	Window           uint16 // TCP
	Credit           uint32 // SCTP: advertised receiver window
	Payload          []byte // not for SCTP
	TTL              uint8  // 64 when zero
	BadChecksum      bool   // spoils the checksum above IP
}

// Bytes returns the packet from its IP header on.
func (p Packet) Bytes() []byte {
	body := p.transport()
	p.sum(body)
	ttl := p.TTL
	if ttl == 0 {
		ttl = 64
	}
	if p.Dst.Is4() {
		h := make([]byte, 20, 20+len(body))
		h[0], h[8], h[9] = 0x45, ttl, p.Proto.number(false)
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], p.Src.AsSlice())
		copy(h[16:], p.Dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], fold(0, h))
		return append(h, body...)
	}
	h := make([]byte, 40, 40+len(body))
	h[0], h[6], h[7] = 0x60, p.Proto.number(true), ttl
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], p.Src.AsSlice())
	copy(h[24:], p.Dst.AsSlice())
	return append(h, body...)
}

func (p Packet) transport() []byte {
	var b []byte
	switch p.Proto {
	case TCP:
		b = make([]byte, 20)
		binary.BigEndian.PutUint32(b[4:], p.Seq)
		binary.BigEndian.PutUint32(b[8:], p.Ack)
		b[12], b[13] = 5<<4, p.Flags
		binary.BigEndian.PutUint16(b[14:], p.Window)
	case UDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(p.Payload)))
	case SCTP:
		return p.sctpInit()
	case ICMP:
		b = make([]byte, 8)
		b[0] = 8
		if p.Dst.Is6() {
			b[0] = 128
		}
		binary.BigEndian.PutUint16(b[4:], p.SrcPort)
		binary.BigEndian.PutUint16(b[6:], p.DstPort)
		return append(b, p.Payload...)
	}
	binary.BigEndian.PutUint16(b[0:], p.SrcPort)
	binary.BigEndian.PutUint16(b[2:], p.DstPort)
	return append(b, p.Payload...)
}

// sctpInit builds a common header and an INIT chunk (RFC 9260, 3.3.2). The
// verification tag of a packet with INIT is zero.
func (p Packet) sctpInit() []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b[0:], p.SrcPort)
	binary.BigEndian.PutUint16(b[2:], p.DstPort)
	b[12], b[15] = 1, 20
	binary.BigEndian.PutUint32(b[16:], p.Seq)
	binary.BigEndian.PutUint32(b[20:], p.Credit)
	binary.BigEndian.PutUint16(b[24:], 1)
	binary.BigEndian.PutUint16(b[26:], 1)
	binary.BigEndian.PutUint32(b[28:], p.Seq)
	return b
}

// Ethernet puts an Ethernet header before a packet, with one 802.1Q header for
// each given tag (priority, and VLAN number in the low 12 bits), outermost
// first.
func Ethernet(dst, src net.HardwareAddr, tags []uint16, packet []byte) []byte {
	b := make([]byte, 0, 14+4*len(tags)+len(packet))
	b = append(append(b, dst...), src...)
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, 0x8100)
		b = binary.BigEndian.AppendUint16(b, tag)
	}
	kind := uint16(0x0800)
	if len(packet) > 0 && packet[0]>>4 == 6 {
		kind = 0x86dd
	}
	b = binary.BigEndian.AppendUint16(b, kind)
	return append(b, packet...)
}
