// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"hash/crc32"
)

// sum writes the checksum of the transport header into body.
func (p Packet) sum(body []byte) {
	at, pseudo := 0, p.pseudo(len(body))
	switch p.Proto {
	case TCP:
		at = 16
	case UDP:
		at = 6
	case ICMP:
		at = 2
		if p.Dst.Is4() {
			pseudo = 0 // ICMP for IPv4 covers itself only
		}
	case SCTP:
		sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(body[8:], p.spoil(sum))
		return
	}
	sum := fold(pseudo, body)
	if p.Proto == UDP && sum == 0 {
		sum = 0xffff // zero would mean "no checksum"
	}
	binary.BigEndian.PutUint16(body[at:], uint16(p.spoil(uint32(sum))))
}

func (p Packet) spoil(sum uint32) uint32 {
	if p.BadChecksum {
		return sum ^ 0x5555
	}
	return sum
}

func (p Packet) pseudo(length int) uint32 {
	sum := uint32(length) + uint32(p.Proto.number(p.Dst.Is6()))
	return words(words(sum, p.Src.AsSlice()), p.Dst.AsSlice())
}

func words(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// fold returns the Internet checksum of b on top of a partial sum.
func fold(sum uint32, b []byte) uint16 {
	sum = words(sum, b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
