// SPDX-License-Identifier: Apache-2.0

package inet

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Hardware is the hardware address of an Ethernet interface. The zero value is none.
type Hardware [6]byte

// HardwareFrom returns the address in a byte slice; ok is false if it is not an Ethernet address,
// or not that of a single interface.
func HardwareFrom(b []byte) (h Hardware, ok bool) {
	if len(b) != len(h) {
		return h, false
	}
	h = Hardware(b)
	return h, h != Hardware{} && h[0]&1 == 0
}

// String returns the address as nft and ip write it.
func (h Hardware) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3], h[4], h[5])
}

// Compare orders addresses by their bytes.
func (h Hardware) Compare(o Hardware) int { return bytes.Compare(h[:], o[:]) }

// LinkLocal returns the IPv6 address that an interface with the hardware address assigns itself
// (RFC 4291, appendix A).
func (h Hardware) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: h[0] ^ 2, 9: h[1], 10: h[2], 11: 0xff, 12: 0xfe, 13: h[3],
		14: h[4], 15: h[5]})
}

// ParseHardware reads a hardware address in the form of String, in upper or lower case; ok is false
// if the text is not one, or not that of a single interface.
func ParseHardware(s string) (h Hardware, ok bool) {
	if len(s) != 17 {
		return h, false
	}
	for i := range h {
		if i > 0 && s[3*i-1] != ':' {
			return Hardware{}, false
		}
		n, err := strconv.ParseUint(s[3*i:3*i+2], 16, 8)
		if err != nil {
			return Hardware{}, false
		}
		h[i] = byte(n)
	}
	return HardwareFrom(h[:])
}

// HardwareRange is the range of hardware addresses that share the first bits of Addr. The zero
// value is none.
type HardwareRange struct {
	Addr Hardware
	Bits int // 1 to 48
}

// ParseHardwareRange reads ADDRESS/BITS, or ADDRESS for one address. Bits after the prefix are
// refused, because it is unknown whether the prefix or the address was meant.
func ParseHardwareRange(s string) (r HardwareRange, ok bool) {
	text, bits, some := strings.Cut(s, "/")
	r.Bits = 8 * len(r.Addr)
	if some {
		n, err := strconv.Atoi(bits)
		if err != nil || n < 1 || n > r.Bits {
			return HardwareRange{}, false
		}
		r.Bits = n
	}
	if r.Addr, ok = ParseHardware(text); !ok || r.Addr != r.first() || some && bits != strconv.Itoa(r.Bits) {
		return HardwareRange{}, false
	}
	return r, true
}

// first returns the first address of the range.
func (r HardwareRange) first() (h Hardware) {
	for i := range h {
		if n := min(8, r.Bits-8*i); n > 0 {
			h[i] = r.Addr[i] &^ (0xff >> n)
		}
	}
	return h
}

// Contains reports whether the address is in the range.
func (r HardwareRange) Contains(h Hardware) bool {
	if r.Bits == 0 {
		return false
	}
	for i := range h {
		if n := min(8, r.Bits-8*i); n > 0 && (h[i]^r.Addr[i])>>(8-n) != 0 {
			return false
		}
	}
	return true
}

// String returns the form that ParseHardwareRange reads.
func (r HardwareRange) String() string { return fmt.Sprintf("%s/%d", r.Addr, r.Bits) }
