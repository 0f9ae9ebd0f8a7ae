// SPDX-License-Identifier: Apache-2.0

package denied

import (
	"encoding/binary"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Flow is what a packet says about its connection.
type Flow struct {
	Src, Dst netip.Addr
	Protocol inet.Protocol
	// Port is the destination port, 0 where there is none: of protocols without ports, and
	// of fragments that do not begin a packet.
	Port uint16
	// Told is true if it is known where the client sent the packet. Called is that, if it was translated into Dst
	// and Port: the address of a Service, or of another translation.
	Told   bool
	Called netip.AddrPort
}

// SentTo returns the flow with the destination that its connection had at first; the zero value if that is not
// known.
func (f Flow) SentTo(first netip.AddrPort) Flow {
	f.Told = first.IsValid()
	if f.Told && (first.Addr() != f.Dst || f.Port != 0 && first.Port() != f.Port) {
		f.Called = first
	}
	return f
}

// Sizes and numbers of IPv4 (RFC 791) and IPv6 (RFC 8200).
const (
	header4, header6 = 20, 40

	hopByHop, routing, fragment, options = 0, 43, 44, 60
	// maxExtensions bounds the extension headers that are read. A packet with more is
	// reported with the protocol of the next one.
	maxExtensions = 8
)

// Parse reads a packet from its network header on. It may be cut short after its headers.
// ok is false if it is no IP packet, or ends before its addresses.
func Parse(b []byte) (f Flow, ok bool) {
	switch {
	case len(b) >= header4 && b[0]>>4 == 4:
		return parse4(b), true
	case len(b) >= header6 && b[0]>>4 == 6:
		return parse6(b), true
	}
	return f, false
}

func parse4(b []byte) Flow {
	f := Flow{Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])),
		Protocol: inet.Protocol(b[9])}
	offset := binary.BigEndian.Uint16(b[6:8]) & 0x1fff
	size := int(b[0]&0x0f) * 4
	if offset == 0 && size >= header4 && size <= len(b) {
		f.Port = port(f.Protocol, b[size:])
	}
	return f
}

func parse6(b []byte) Flow {
	f := Flow{Src: netip.AddrFrom16([16]byte(b[8:24])), Dst: netip.AddrFrom16([16]byte(b[24:40])),
		Protocol: inet.Protocol(b[6])}
	b = b[header6:]
	for range maxExtensions {
		size := 8
		switch f.Protocol {
		case hopByHop, routing, options:
			if len(b) < 2 {
				return f
			}
			size = 8 + int(b[1])*8
		case fragment:
			if len(b) < 8 {
				return f
			}
			if binary.BigEndian.Uint16(b[2:4])>>3 != 0 { // not the first one
				f.Protocol = inet.Protocol(b[0])
				return f
			}
		default:
			f.Port = port(f.Protocol, b)
			return f
		}
		if len(b) < size {
			return f
		}
		f.Protocol, b = inet.Protocol(b[0]), b[size:]
	}
	return f
}

func port(p inet.Protocol, transport []byte) uint16 {
	switch p {
	case inet.TCP, inet.UDP, inet.SCTP:
		if len(transport) >= 4 {
			return binary.BigEndian.Uint16(transport[2:4])
		}
	}
	return 0
}
