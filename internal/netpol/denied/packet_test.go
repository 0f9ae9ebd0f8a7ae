// SPDX-License-Identifier: Apache-2.0

package denied

import (
	"bytes"
	"net/netip"
	"testing"
)

func ip4(protocol byte, offset byte, more ...byte) []byte {
	b := append(make([]byte, 20), more...)
	b[0], b[7], b[9] = 0x45, offset, protocol
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return b
}

func ip6(next byte, more ...byte) []byte {
	b := append(make([]byte, 40), more...)
	b[0], b[6], b[23], b[39] = 0x60, next, 1, 2
	return b
}

func TestPacketsAreRead(t *testing.T) {
	four := [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	six := [2]netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("::2")}
	ports := []byte{0, 1, 0, 80}
	longer := ip4(6, 0, append([]byte{1, 1, 1, 1}, ports...)...)
	longer[0] = 0x46
	for name, c := range map[string]struct {
		packet []byte
		ends   [2]netip.Addr
		proto  uint8
		port   uint16
	}{
		"tcp":            {ip4(6, 0, ports...), four, 6, 80},
		"options":        {longer, four, 6, 80},
		"fragment":       {ip4(17, 9, ports...), four, 17, 0},
		"icmp":           {ip4(1, 0, ports...), four, 1, 0},
		"cut short":      {ip4(6, 0, 0, 1), four, 6, 0},
		"udp6":           {ip6(17, ports...), six, 17, 80},
		"hop by hop":     {ip6(0, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, ports...)...), six, 17, 80},
		"first fragment": {ip6(44, append([]byte{132, 0, 0, 1, 0, 0, 0, 0}, ports...)...), six, 132, 80},
		"later fragment": {ip6(44, append([]byte{6, 0, 0, 9, 0, 0, 0, 0}, ports...)...), six, 6, 0},
		"short header":   {ip6(43, 6), six, 43, 0},
		"long header":    {ip6(60, 6, 200), six, 60, 0},
		"many headers":   {ip6(0, bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0}, 20)...), six, 0, 0},
	} {
		got, ok := Parse(c.packet)
		if !ok || got.Src != c.ends[0] || got.Dst != c.ends[1] || uint8(got.Protocol) != c.proto || got.Port != c.port {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
	}
	for _, b := range [][]byte{nil, {0x45}, make([]byte, 60), ip6(6)[:39], ip4(6, 0)[:19]} {
		if f, ok := Parse(b); ok {
			t.Errorf("%x is read as %+v", b, f)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ip4(6, 0, 0, 1, 0, 80))
	f.Add(ip6(44, 6, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 80))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := Parse(b); ok && (!got.Src.IsValid() || got.Src.Is4() != got.Dst.Is4()) {
			t.Errorf("%x: %+v", b, got)
		}
	})
}
