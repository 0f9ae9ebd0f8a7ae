// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stage

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ICMP builds an ICMP or ICMPv6 packet of any type; rest are the four bytes
// behind the checksum.
func ICMP(src, dst netip.Addr, kind, code, hops uint8, rest uint32, body []byte) []byte {
	m := append([]byte{kind, code, 0, 0}, binary.BigEndian.AppendUint32(nil, rest)...)
	m = append(m, body...)
	sum := uint32(0)
	if dst.Is6() {
		sum = words(words(uint32(len(m))+unix.IPPROTO_ICMPV6, src.AsSlice()), dst.AsSlice())
	}
	for sum = words(sum, m); sum > 0xffff; {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return IP(src, dst, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, hops, m)
}

// IP puts an IP header before a body; proto4 and proto6 are the protocol of
// each family.
func IP(src, dst netip.Addr, proto4, proto6, hops uint8, body []byte) []byte {
	if dst.Is4() {
		h := make([]byte, 20, 20+len(body))
		h[0], h[8], h[9] = 0x45, hops, proto4
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		sum := words(0, h)
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum>>16+sum&0xffff))
		return append(h, body...)
	}
	h := make([]byte, 40, 40+len(body))
	h[0], h[6], h[7] = 0x60, proto6, hops
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, body...)
}

func words(sum uint32, b []byte) uint32 {
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	return sum
}
