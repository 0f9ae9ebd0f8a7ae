// SPDX-License-Identifier: Apache-2.0

package inet

import (
	"bytes"
	"fmt"
	"net/netip"
)

// Hardware is the hardware address of an Ethernet interface. The zero value is none.
type Hardware [6]byte

// HardwareFrom returns the address of a byte slice; ok is false if it is none of
// Ethernet, or no address of one interface.
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

// LinkLocal returns the IPv6 address that an interface with the hardware address
// gives itself (RFC 4291, appendix A).
func (h Hardware) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: h[0] ^ 2, 9: h[1], 10: h[2], 11: 0xff, 12: 0xfe, 13: h[3], 14: h[4], 15: h[5]})
}
