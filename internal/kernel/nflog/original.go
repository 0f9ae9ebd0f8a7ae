// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nflog

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
)

// The numbers of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h that are read.
const (
	tupleOriginal = 1
	tupleIP       = 1
	tupleProtocol = 2
	ipv4Dst       = 2
	ipv6Dst       = 4
	dstPort       = 3

	firstReply = 3 // IP_CT_IS_REPLY: states from here on are of the other direction
)

// original is what a packet's entry of the connection table says.
type original struct {
	to    netip.AddrPort
	reply bool
}

// destination is the destination of the connection as its first packet had it; the zero value for a packet of
// the other direction.
func (o original) destination() netip.AddrPort {
	if o.reply {
		return netip.AddrPort{}
	}
	return o.to
}

// read reads the attribute with the entry. What cannot be read is left out: a packet is worth more than where it
// was sent at first.
func (o *original) read(entry []byte) {
	tuple := nested(entry, tupleOriginal)
	addr, port := netip.Addr{}, uint16(0)
	each(nested(tuple, tupleIP), func(kind uint16, data []byte) {
		if a, ok := netip.AddrFromSlice(data); ok && (kind == ipv4Dst || kind == ipv6Dst) {
			addr = a
		}
	})
	each(nested(tuple, tupleProtocol), func(kind uint16, data []byte) {
		if kind == dstPort && len(data) == 2 {
			port = binary.BigEndian.Uint16(data)
		}
	})
	if addr.IsValid() {
		o.to = netip.AddrPortFrom(addr, port)
	}
}

// nested returns the attribute of a kind among others.
func nested(data []byte, kind uint16) (found []byte) {
	each(data, func(k uint16, inner []byte) {
		if k == kind {
			found = inner
		}
	})
	return found
}

func each(data []byte, do func(kind uint16, data []byte)) {
	a, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return
	}
	for a.Next() {
		do(a.Type(), a.Bytes())
	}
}
