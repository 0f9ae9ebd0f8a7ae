// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/inet"
)

// What a pod may edit is believed only if nothing speaks against it.
func TestAnAddressIsFoundByItsPortAloneOnlyIfNothingSpeaksAgainstIt(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00:9::1")
	one, two := port{index: 1}, port{index: 2}
	now := map[port]device{one: {index: 1, name: "veth1", master: 7}, two: {index: 2, name: "veth2", master: 8}}
	owner := map[netip.Addr]Pod{a: {Name: "x/a"}, c: {Name: "x/a"}, b: {Name: "x/b"}}
	for _, tt := range []struct {
		name   string
		claims map[port][]netip.Addr
		before map[port][]netip.Addr // bound to the port already
		wish   wish
		want   port
		why    string
	}{
		{name: "one port", claims: map[port][]netip.Addr{one: {a, c}}, want: one},
		{name: "no port", claims: map[port][]netip.Addr{one: {b}}},
		{name: "two ports", claims: map[port][]netip.Addr{one: {a}, two: {a}}, why: "veth1, veth2"},
		{name: "another pod's port", claims: map[port][]netip.Addr{one: {a, b}}, why: "x/b"},
		{name: "a port that was another pod's", claims: map[port][]netip.Addr{one: {a}}, before: map[port][]netip.Addr{one: {b}}, why: "x/b"},
		{name: "a route elsewhere", claims: map[port][]netip.Addr{one: {a}}, wish: wish{other: "the route 10.9.0.0/24"}, why: "the route 10.9.0.0/24 leads elsewhere"},
		{name: "the bridge that the route says", claims: map[port][]netip.Addr{one: {a}}, wish: wish{bridge: 7}, want: one},
		{name: "another bridge than the route says", claims: map[port][]netip.Addr{one: {a}}, wish: wish{bridge: 8}, why: "another bridge"},
	} {
		p := ports{of: tt.before}
		got, why := p.judge(a, tt.wish, now, tt.claims, owner)
		if got != tt.want || !strings.Contains(why, tt.why) || tt.why == "" && why != "" {
			t.Errorf("%s: %v %q, want %v %q", tt.name, got, why, tt.want, tt.why)
		}
	}
}

// The device with the node's address may stand on the bridge in several ways.
func TestTheBridgeUnderADevice(t *testing.T) {
	l := New(Options{})
	l.names = map[int]device{
		1: {index: 1, name: "br0", kind: "bridge"},
		2: {index: 2, name: "br0.100", kind: "vlan", peer: 1},
		3: {index: 3, name: "gw0", kind: "veth", peer: 4},
		4: {index: 4, name: "gw0-port", kind: "veth", peer: 3, master: 1},
		5: {index: 5, name: "eth0", kind: "device"},
		6: {index: 6, name: "eth0.100", kind: "vlan", peer: 5},
		7: {index: 7, name: "pod", kind: "veth", peer: 4, away: true, netns: 3}, // the index is of another namespace
	}
	for name, want := range map[int]int{2: 1, 3: 1, 5: 0, 6: 0, 7: 0} {
		if got := l.bridgeUnder(name); got != want {
			t.Errorf("under %s is %d, want %d", l.names[name].name, got, want)
		}
	}
	if got := slices.Concat(slices.Collect(maps.Values(l.NodePorts()))...); len(got) != 1 || got[0] != "gw0-port" {
		t.Errorf("the node's own ports are %v, want gw0-port", got)
	}
}

// A pod's further address that its port does not have is asked for once a second,
// at the ports of this pod only.
func TestAPortIsAskedAgainForAFurtherAddressAfterAWhile(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pairTo(t, "pod0", true)
		link, err := netlink.LinkByName("pod0")
		check(t, err)
		d := device{index: link.Attrs().Index, name: "pod0", kind: "veth", master: 7, netns: link.Attrs().NetNsID, peer: link.Attrs().ParentIndex, away: true}
		a, b, c := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1"), netip.MustParseAddr("fd00:9::2")
		pods := []Pod{{Addr: a, Name: "x/a"}, {Addr: b, Name: "x/a"}, {Addr: c, Name: "x/c"}}
		paths := map[netip.Addr]inet.Path{a: {Index: 7, Bridge: true}, b: {Index: 7, Bridge: true}, c: {Index: 7, Bridge: true}}
		p := newPorts()
		p.of[portOf(d)] = []netip.Addr{a}
		ask := func() time.Time {
			t.Helper()
			_, err := p.find(map[int]device{d.index: d}, pods, paths)
			check(t, err)
			if _, tried := p.tried[c]; tried || len(p.tried) > 1 {
				t.Errorf("tried is %v, want only %v: no port is known of the other pod", p.tried, b)
			}
			return p.tried[b]
		}
		first := ask()
		if first.IsZero() {
			t.Fatal("the port was not asked")
		}
		p.tried[b] = time.Now().Add(time.Hour) // not before an hour from now, however busy the machine is
		if at := p.tried[b]; ask() != at {
			t.Error("the port was asked again at once")
		}
		p.tried[b] = time.Now().Add(-2 * askEach)
		if at := p.tried[b]; !ask().After(at) {
			t.Error("the port was not asked again after a while")
		}
		if bound := boundTo(pods, map[netip.Addr]device{a: d, b: d}); len(bound) != 1 || len(bound[Pod{Name: "x/a"}]) != 1 {
			t.Errorf("bound is %v, want one port of one pod", bound)
		}
	})
}
