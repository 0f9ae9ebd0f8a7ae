// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conntrack

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// Constants of the kernel's interface (linux/netfilter/nfnetlink_conntrack.h).
const (
	subsystem   = unix.NFNL_SUBSYS_CTNETLINK << 8
	msgGet      = subsystem | 1
	msgDelete   = subsystem | 2
	msgGetStats = subsystem | 5

	attrOrig      = 1
	attrReply     = 2
	attrStatus    = 3
	attrProtoInfo = 4
	attrID        = 12
	attrZone      = 18
	attrFilter    = 25

	statusDNAT = 1 << 5 // of attrStatus (enum ip_conntrack_status)

	tupleIP    = 1
	tupleProto = 2
	tupleZone  = 3

	protoNum    = 1
	protoSrc    = 2
	protoDst    = 3
	protoICMP   = 4 // id, type and code, then the same three for ICMPv6
	protoICMPv6 = 7

	infoTCP       = 1
	tcpState      = 1
	tcpFlagsOrig  = 4
	tcpFlagsReply = 5
	beLiberal     = 0x08
	// States of TCP connections (enum tcp_conntrack).
	synSent, timeWait, closed = 1, 7, 8

	filterOrig     = 1
	filterReply    = 2
	filterSource   = 1 << 0 // of an address
	filterProtocol = 1 << 3

	attrStatsEntries = 1
	attrStatsMax     = 2

	genHeader = 4      // family, version, resource
	typeMask  = 0x3fff // without the flags for nesting and byte order
	icmp      = 1
	icmpv6    = 58
)

func align(n int) int { return (n + 3) &^ 3 }

// attribute is one netlink attribute.
type attribute struct {
	kind uint16
	data []byte
}

// attributes iterates over a list of attributes and stops at a malformed one.
func attributes(b []byte) iter.Seq[attribute] {
	return func(yield func(attribute) bool) {
		for len(b) >= 4 {
			size := int(binary.NativeEndian.Uint16(b))
			if size < 4 || size > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) & typeMask
			if !yield(attribute{kind, b[4:size]}) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// decode reads an entry of a dump. ok is false if the entry lacks addresses.
func decode(body []byte, e *inet.Connection) (ok bool) {
	*e = inet.Connection{}
	untranslated := false
	for a := range attributes(body[min(genHeader, len(body)):]) {
		switch {
		case a.kind == attrOrig:
			e.Protocol = decodeTuple(a.data, &e.Orig)
		case a.kind == attrReply:
			decodeTuple(a.data, &e.Reply)
		case a.kind == attrProtoInfo:
			decodeProtoInfo(a.data, e)
		case a.kind == attrStatus && len(a.data) == 4:
			untranslated = binary.BigEndian.Uint32(a.data)&statusDNAT == 0
		case a.kind == attrID:
			copy(e.ID[:], a.data)
		case a.kind == attrZone && len(a.data) == 2:
			e.Zone = binary.BigEndian.Uint16(a.data)
		}
	}
	e.Balanced = untranslated && (e.Reply.Src != e.Orig.Dst || e.Reply.SrcPort != e.Orig.DstPort)
	return e.Orig.Src.IsValid() && e.Orig.Dst.IsValid() && e.Reply.Src.IsValid() && e.Reply.Dst.IsValid()
}

func decodeTuple(b []byte, t *inet.Tuple) (p inet.Protocol) {
	for a := range attributes(b) {
		switch {
		case a.kind == tupleIP:
			for ip := range attributes(a.data) {
				// Source and destination of IPv4, then those of IPv6.
				if addr, ok := netip.AddrFromSlice(ip.data); ok && ip.kind%2 == 1 {
					t.Src = addr
				} else if ok {
					t.Dst = addr
				}
			}
		case a.kind == tupleProto:
			p = decodeProto(a.data, t)
		case a.kind == tupleZone && len(a.data) == 2:
			t.Zone = binary.BigEndian.Uint16(a.data)
		}
	}
	return p
}

func decodeProto(b []byte, t *inet.Tuple) (p inet.Protocol) {
	for a := range attributes(b) {
		switch {
		case len(a.data) == 1 && a.kind == protoNum:
			p = inet.Protocol(a.data[0])
		case len(a.data) == 1 && (a.kind == protoICMP+1 || a.kind == protoICMPv6+1):
			t.ICMP.Type = a.data[0]
		case len(a.data) == 1 && (a.kind == protoICMP+2 || a.kind == protoICMPv6+2):
			t.ICMP.Code = a.data[0]
		case len(a.data) != 2:
		case a.kind == protoSrc:
			t.SrcPort = binary.BigEndian.Uint16(a.data)
		case a.kind == protoDst:
			t.DstPort = binary.BigEndian.Uint16(a.data)
		case a.kind == protoICMP || a.kind == protoICMPv6:
			t.ICMP.ID = binary.BigEndian.Uint16(a.data)
		}
	}
	return p
}

// decodeProtoInfo reads the state of a TCP connection.
func decodeProtoInfo(b []byte, e *inet.Connection) {
	for info := range attributes(b) {
		if info.kind != infoTCP {
			continue
		}
		for a := range attributes(info.data) {
			switch {
			case len(a.data) == 0:
			case a.kind == tcpState:
				e.Finished = a.data[0] == timeWait || a.data[0] == closed
				e.Opening = a.data[0] == synSent
			case a.kind == tcpFlagsOrig || a.kind == tcpFlagsReply:
				e.PickedUp = e.PickedUp || a.data[0]&beLiberal != 0
			}
		}
	}
}

// begin starts a message in the buffer for sending.
func (c *Conn) begin(kind uint16, flags uint16, f inet.Family) []byte {
	c.out = c.out[:0]
	return c.append(kind, flags, f)
}

// append starts another message. Its length is set by end.
func (c *Conn) append(kind uint16, flags uint16, f inet.Family) []byte {
	c.seq++
	b := binary.NativeEndian.AppendUint32(c.out, unix.NLMSG_HDRLEN+genHeader)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, family(f), unix.NFNETLINK_V0, 0, 0)
}

func family(f inet.Family) byte {
	switch f {
	case inet.IPv4:
		return unix.AF_INET
	case inet.IPv6:
		return unix.AF_INET6
	}
	return unix.AF_UNSPEC
}

// end sets the length of the message that starts at the offset.
func end(b []byte, start int) []byte {
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func attr(b []byte, kind uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, align(len(data))-len(data))...)
}

func number(n uint16) []byte { return []byte{byte(n >> 8), byte(n)} }

// nested writes an attribute that contains attributes.
func nested(b []byte, kind uint16, inside func([]byte) []byte) []byte {
	start := len(b)
	b = inside(binary.NativeEndian.AppendUint16(append(b, 0, 0), kind|unix.NLA_F_NESTED))
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

// addresses writes the valid addresses of a tuple.
func addresses(b []byte, t inet.Tuple) []byte {
	return nested(b, tupleIP, func(b []byte) []byte {
		for i, a := range []netip.Addr{t.Src, t.Dst} {
			switch {
			case a.Is4():
				b = attr(b, uint16(1+i), a.AsSlice()...)
			case a.Is6():
				b = attr(b, uint16(3+i), a.AsSlice()...)
			}
		}
		return b
	})
}

// tuple writes a complete tuple.
func tuple(b []byte, kind uint16, p inet.Protocol, t inet.Tuple) []byte {
	return nested(b, kind, func(b []byte) []byte {
		b = nested(addresses(b, t), tupleProto, func(b []byte) []byte {
			b = attr(b, protoNum, byte(p))
			switch p {
			case icmp, icmpv6:
				first := uint16(protoICMP)
				if p == icmpv6 {
					first = protoICMPv6
				}
				return attr(attr(attr(b, first, number(t.ICMP.ID)...), first+1, t.ICMP.Type), first+2, t.ICMP.Code)
			}
			return attr(attr(b, protoSrc, number(t.SrcPort)...), protoDst, number(t.DstPort)...)
		})
		if t.Zone != 0 {
			b = attr(b, tupleZone, number(t.Zone)...)
		}
		return b
	})
}
