// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

// Parse reads a packet from its IP header on, without checking checksums (the
// kernel leaves them to devices). The packet may be cut short after the fields
// that Packet has. Fragments, IPv6 extension headers and other protocols are
// not ok. For ICMP, Kind is the type and Code the code, and only echo messages
// have ports. SCTP without an INIT chunk has Seq 0 and its verification tag in
// Ack.
func Parse(b []byte) (p Packet, kind Kind, ok bool) {
	if len(b) < 20 {
		return p, kind, false
	}
	var number byte
	switch head := int(b[0]&0x0f) * 4; {
	case b[0]>>4 == 4 && head >= 20 && len(b) >= head && binary.BigEndian.Uint16(b[6:])&0x1fff == 0:
		p.Src, _ = netip.AddrFromSlice(b[12:16])
		p.Dst, _ = netip.AddrFromSlice(b[16:20])
		number, b = b[9], trim(b, int(binary.BigEndian.Uint16(b[2:])), head)
	case b[0]>>4 == 6 && len(b) >= 40:
		p.Src, _ = netip.AddrFromSlice(b[8:24])
		p.Dst, _ = netip.AddrFromSlice(b[24:40])
		number, b = b[6], trim(b, 40+int(binary.BigEndian.Uint16(b[4:])), 40)
	default:
		return p, kind, false
	}
	return ParseTransport(p.Src, p.Dst, number, b)
}

// trim removes the header and what Ethernet pads.
func trim(b []byte, total, head int) []byte {
	if total >= head && total < len(b) {
		b = b[:total]
	}
	return b[head:]
}

// Kind is the type and code of an ICMP or ICMPv6 message, and the type of the
// first chunk of an SCTP packet; otherwise zero.
type Kind struct{ Type, Code uint8 }

// ParseTransport is Parse for what follows the IP header.
func ParseTransport(src, dst netip.Addr, number byte, b []byte) (p Packet, kind Kind, ok bool) {
	p.Src, p.Dst, p.Proto = src, dst, Protocol(number)
	if number == icmp6 && dst.Is6() {
		p.Proto = ICMP
	}
	if len(b) < 8 {
		return p, kind, false
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch {
	case p.Proto == TCP:
		return p.parseTCP(b), kind, true
	case p.Proto == UDP:
		p.Payload = b[8:]
	case p.Proto == SCTP && len(b) >= 13:
		p.Ack, kind.Type = binary.BigEndian.Uint32(b[4:]), b[12]
		if kind.Type == 1 && len(b) >= 24 {
			p.Seq, p.Credit = binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
		}
	case p.Proto == ICMP:
		kind = Kind{b[0], b[1]}
		p.SrcPort, p.DstPort, p.Payload = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), b[8:]
	default:
		return p, kind, false
	}
	return p, kind, true
}

func (p Packet) parseTCP(b []byte) Packet {
	p.Seq = binary.BigEndian.Uint32(b[4:])
	if len(b) >= 16 { // an ICMP error need not quote more than the first 8 bytes
		p.Ack, p.Flags = binary.BigEndian.Uint32(b[8:]), b[13]
		p.Window = binary.BigEndian.Uint16(b[14:])
	}
	return p
}
