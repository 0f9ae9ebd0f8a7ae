// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nflog

import (
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
)

// attributes writes some, in the order of their kinds.
func attributes(t *testing.T, list ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entry is one of the connection table, as the kernel writes it.
func entry(t *testing.T, kind uint16, to netip.Addr, port []byte) []byte {
	const nested = netlink.Nested
	ip := attributes(t, netlink.Attribute{Type: kind - 1, Data: make([]byte, len(to.AsSlice()))},
		netlink.Attribute{Type: kind, Data: to.AsSlice()})
	protocol := attributes(t, netlink.Attribute{Type: 1, Data: []byte{6}}, netlink.Attribute{Type: 2, Data: []byte{1, 1}},
		netlink.Attribute{Type: dstPort, Data: port})
	tuple := attributes(t, netlink.Attribute{Type: tupleIP | nested, Data: ip},
		netlink.Attribute{Type: tupleProtocol | nested, Data: protocol})
	return attributes(t, netlink.Attribute{Type: tupleOriginal | nested, Data: tuple},
		netlink.Attribute{Type: 2 | nested, Data: attributes(t)})
}

func TestEntriesAreRead(t *testing.T) {
	four, six := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1")
	whole := entry(t, ipv4Dst, four, []byte{0, 80})
	for name, c := range map[string]struct {
		entry []byte
		state byte
		want  netip.AddrPort
	}{
		"IPv4":               {whole, 2, netip.AddrPortFrom(four, 80)},
		"IPv6":               {entry(t, ipv6Dst, six, []byte{1, 187}), 0, netip.AddrPortFrom(six, 443)},
		"an answer":          {whole, firstReply, netip.AddrPort{}},
		"a port cut short":   {entry(t, ipv4Dst, four, []byte{80}), 2, netip.AddrPortFrom(four, 0)},
		"no address":         {entry(t, ipv4Dst, netip.Addr{}, []byte{0, 80}), 2, netip.AddrPort{}},
		"an entry cut short": {whole[:len(whole)-9], 2, netip.AddrPort{}},
		"no entry":           {nil, 2, netip.AddrPort{}},
	} {
		list := []netlink.Attribute{{Type: attrPrefix, Data: []byte("p\x00")}}
		if c.entry != nil {
			list = append(list, netlink.Attribute{Type: attrEntry | netlink.Nested, Data: c.entry})
		}
		list = append(list, netlink.Attribute{Type: attrState, Data: []byte{0, 0, 0, c.state}})
		p, err := (&Listener{}).packet(attributes(t, list...))
		if err != nil || p.Prefix != "p" || p.Original != c.want {
			t.Errorf("%s: %+v, %v, want %s", name, p, err, c.want)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte{8, 0, 1, 128, 4, 0, 1, 128})
	f.Fuzz(func(_ *testing.T, b []byte) {
		var o original
		o.read(b) // whatever it is, nothing but the address is taken
	})
}
