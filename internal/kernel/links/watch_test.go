// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// message is the kernel's message about a unicast route in the main table.
func message(t *testing.T, to string, kind uint8, attrs ...netlink.Attribute) []byte {
	t.Helper()
	dst := netip.MustParsePrefix(to)
	head := make([]byte, attrsAt)
	head[0], head[1], head[4], head[7] = unix.AF_INET, uint8(dst.Bits()), unix.RT_TABLE_MAIN, kind
	if dst.Addr().Is6() {
		head[0] = unix.AF_INET6
	}
	if dst.Bits() > 0 {
		attrs = append(attrs, netlink.Attribute{Type: unix.RTA_DST, Data: dst.Addr().AsSlice()})
	}
	raw, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, raw...)
}

func over(link uint32) netlink.Attribute {
	return netlink.Attribute{Type: unix.RTA_OIF, Data: nlenc.Uint32Bytes(link)}
}

// hops writes the next hops of a route with several.
func hops(links ...uint32) netlink.Attribute {
	var data []byte
	for _, link := range links {
		hop := make([]byte, unix.SizeofRtNexthop)
		binary.NativeEndian.PutUint16(hop, unix.SizeofRtNexthop)
		binary.NativeEndian.PutUint32(hop[4:], link)
		data = append(data, hop...)
	}
	return netlink.Attribute{Type: unix.RTA_MULTIPATH, Data: data}
}

func TestARouteToASingleAddressIsToldFromOthers(t *testing.T) {
	via := netlink.Attribute{Type: unix.RTA_GATEWAY, Data: []byte{192, 0, 2, 1}}
	tests := []struct {
		name  string
		route []byte
		want  string
	}{
		{"IPv4", message(t, "10.0.0.7/32", unix.RTN_UNICAST, over(7)), "{10.0.0.7 7} true"},
		{"IPv6", message(t, "fd00::7/128", unix.RTN_UNICAST, over(7)), "{fd00::7 7} true"},
		{"a network", message(t, "10.0.0.0/31", unix.RTN_UNICAST, over(7)), "false"},
		{"a network of IPv6 as long as an address of IPv4", message(t, "fd00::/32", unix.RTN_UNICAST, over(7)), "false"},
		{"over a gateway", message(t, "10.0.0.7/32", unix.RTN_UNICAST, over(7), via), "false"},
		{"over several", message(t, "10.0.0.7/32", unix.RTN_UNICAST, hops(7, 8)), "false"},
		{"the node's own", message(t, "10.0.0.7/32", unix.RTN_LOCAL, over(7)), "false"},
		{"link-local", message(t, "fe80::7/128", unix.RTN_UNICAST, over(7)), "false"},
		{"everything else", message(t, "0.0.0.0/0", unix.RTN_UNICAST, over(7)), "false"},
	}
	for _, tt := range tests {
		r, ok := parseRoute(tt.route)
		if !ok {
			t.Errorf("%s: not read", tt.name)
		}
		h, ok := r.host()
		got := fmt.Sprint(ok)
		if ok {
			got = fmt.Sprint(h, ok)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestInterfacesOfRoutesThroughGateways(t *testing.T) {
	via := netlink.Attribute{Type: unix.RTA_GATEWAY, Data: []byte{192, 0, 2, 1}}
	advertised := message(t, "::/0", unix.RTN_UNICAST, over(7), via)
	advertised[5] = unix.RTPROT_RA
	for name, tt := range map[string]struct {
		route []byte
		want  string
	}{
		"direct":     {message(t, "10.0.0.0/24", unix.RTN_UNICAST, over(7)), "[]"},
		"gateway":    {message(t, "10.0.0.0/24", unix.RTN_UNICAST, over(7), via), "[7]"},
		"several":    {message(t, "0.0.0.0/0", unix.RTN_UNICAST, hops(7, 9)), "[7 9]"},
		"advertised": {advertised, "[]"},
	} {
		r, ok := parseRoute(tt.route)
		got := []int{}
		r.outBy(func(link int) { got = append(got, link) })
		if !ok || fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v %t, want %s", name, got, ok, tt.want)
		}
	}
}

func FuzzMessagesOfRoutesAreReadWithinTheirBounds(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 7, 3, 0})
	f.Fuzz(func(_ *testing.T, data []byte) {
		if r, ok := parseRoute(data); ok {
			r.host()
			r.outBy(func(int) {})
		}
	})
}

func TestReadingARouteCostsNoMemory(t *testing.T) {
	data := message(t, "fd00::7/128", unix.RTN_UNICAST, over(7))
	if n := testing.AllocsPerRun(100, func() {
		r, _ := parseRoute(data)
		r.host()
	}); n != 0 {
		t.Errorf("%v allocations a route, want none", n)
	}
}
