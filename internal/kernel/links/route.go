// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// route holds the parts of a route message that matter here. Parsing does not allocate: there may be a
// million routes.
type route struct {
	table    uint32
	kind     uint8 // RTN_UNICAST and so on
	protocol uint8
	dst      netip.Prefix
	link     int // the interface's index; 0 if there are several, or none
	gateway  bool
	several  []byte // the next hops of a multipath route, as the kernel encodes them
}

// attrsAt is the offset of the attributes in a route message.
const attrsAt = unix.SizeofRtMsg

// parseRoute parses the payload of a route message.
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

// word reads a number in the kernel's byte order; 0 if it is too short.
func word(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// outBy calls f with each interface over which the route leads out of the node through a gateway. Routers
// from router advertisements are ignored: any host on the link can send one, and so can a pod.
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

// host returns the destination of the route if it is a single address on a link.
func (r *route) host() (h Host, ok bool) {
	if r.kind != unix.RTN_UNICAST || r.gateway || r.link == 0 || len(r.several) > 0 || !r.dst.IsSingleIP() {
		return h, false
	}
	addr := r.dst.Addr().Unmap()
	return Host{addr, r.link}, !addr.IsLinkLocalUnicast()
}

// cached reports whether the message is about a route cache entry (RTM_F_CLONED), which is in no table.
func (r *route) cached(data []byte) bool { return word(data[8:])&unix.RTM_F_CLONED != 0 }
