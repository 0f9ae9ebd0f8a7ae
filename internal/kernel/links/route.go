// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// route is what a message of the kernel says of a route, as far as it matters
// here. It is read without allocations: others may have a million routes.
type route struct {
	table    uint32
	kind     uint8 // RTN_UNICAST and so on
	protocol uint8
	dst      netip.Prefix
	link     int // the interface's index; 0 if there are several, or none
	gateway  bool
	several  []byte // the next hops of a route with several, as the kernel wrote them
}

// attrsAt is where the attributes of a route begin in its message.
const attrsAt = unix.SizeofRtMsg

// parseRoute reads the payload of a message about a route.
func parseRoute(data []byte) (r route, ok bool) {
	if len(data) < attrsAt {
		return r, false
	}
	family, bits := data[0], int(data[1])
	r.table, r.protocol, r.kind = uint32(data[4]), data[5], data[7]
	var dst netip.Addr
	switch family {
	case unix.AF_INET:
		dst = netip.IPv4Unspecified()
	case unix.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return r, false
	}
	for rest := data[attrsAt:]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			return r, false
		}
		value := rest[unix.SizeofRtAttr:size]
		switch binary.NativeEndian.Uint16(rest[2:]) &^ unix.NLA_F_NESTED {
		case unix.RTA_DST:
			if dst, ok = netip.AddrFromSlice(value); !ok {
				return r, false
			}
		case unix.RTA_OIF:
			r.link = int(word(value))
		case unix.RTA_TABLE:
			r.table = word(value)
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			r.gateway = true
		case unix.RTA_MULTIPATH:
			r.several = value
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	r.dst = netip.PrefixFrom(dst, bits)
	return r, r.dst.IsValid()
}

// word reads a number of the kernel, 0 if it is too short.
func word(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// outBy calls f with each interface that the route leads out of the node by,
// through a gateway. A router that was advertised is none: anybody on the link
// can advertise one, a pod too.
func (r *route) outBy(f func(link int)) {
	if r.protocol == unix.RTPROT_RA {
		return
	}
	if r.gateway && r.link != 0 {
		f(r.link)
	}
	for rest := r.several; len(rest) >= unix.SizeofRtNexthop; {
		f(int(word(rest[4:])))
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtNexthop {
			return
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
}

// host returns what the route leads to, if that is one address on a link.
func (r *route) host() (h Host, ok bool) {
	if r.kind != unix.RTN_UNICAST || r.gateway || r.link == 0 || len(r.several) > 0 || !r.dst.IsSingleIP() {
		return h, false
	}
	addr := r.dst.Addr().Unmap()
	return Host{addr, r.link}, !addr.IsLinkLocalUnicast()
}

// cached reports whether the message is about the kernel's memory of a route
// (RTM_F_CLONED), which no table holds.
func (r *route) cached(data []byte) bool { return word(data[8:])&unix.RTM_F_CLONED != 0 }
