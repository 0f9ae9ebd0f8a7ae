// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestARouteToASingleAddressIsToldFromOthers(t *testing.T) {
	route := func(dst string, change func(r *netlink.Route)) netlink.Route {
		_, to, err := net.ParseCIDR(dst)
		if err != nil {
			t.Fatal(err)
		}
		r := netlink.Route{Dst: to, LinkIndex: 7, Type: unix.RTN_UNICAST}
		if change != nil {
			change(&r)
		}
		return r
	}
	tests := []struct {
		name  string
		route netlink.Route
		want  string
	}{
		{"IPv4", route("10.0.0.7/32", nil), "{10.0.0.7 7} true"},
		{"IPv6", route("fd00::7/128", nil), "{fd00::7 7} true"},
		{"a network", route("10.0.0.0/31", nil), "false"},
		{"a network of IPv6 as long as an address of IPv4", route("fd00::/32", nil), "false"},
		{"over a gateway", route("10.0.0.7/32", func(r *netlink.Route) { r.Gw = net.IPv4(192, 0, 2, 1) }), "false"},
		{"over several", route("10.0.0.7/32", func(r *netlink.Route) { r.MultiPath = []*netlink.NexthopInfo{{}} }), "false"},
		{"the node's own", route("10.0.0.7/32", func(r *netlink.Route) { r.Type = unix.RTN_LOCAL }), "false"},
		{"link-local", route("fe80::7/128", nil), "false"},
		{"everything else", netlink.Route{LinkIndex: 7, Type: unix.RTN_UNICAST}, "false"},
	}
	for _, tt := range tests {
		h, ok := hostOf(tt.route)
		got := fmt.Sprint(ok)
		if ok {
			got = fmt.Sprint(h, ok)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
