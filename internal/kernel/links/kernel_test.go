// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	testentry "github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/wake"
)

func TestMain(m *testing.M) { testentry.Try(m) }

// inOwnNamespace runs f in a process and a network namespace of its own.
func inOwnNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	apart.Run(t, f)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pairTo makes a pair of interfaces, with the peer in a namespace of its own, or here.
func pairTo(t *testing.T, name string, away bool) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := netlink.NewVeth(attrs)
	veth.PeerName = name + "-peer"
	if away {
		ns, err := netns.New()
		check(t, err)
		t.Cleanup(func() { _ = ns.Close() })
		veth.PeerNamespace = netlink.NsFd(ns.FD())
	}
	check(t, netlink.LinkAdd(veth))
	link, err := netlink.LinkByName(name)
	check(t, err)
	// The kernel's own IPv6 routes would be news.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", []byte("1"), 0)
	check(t, netlink.LinkSetUp(link))
	if !away {
		peer, err := netlink.LinkByName(veth.PeerName)
		check(t, err)
		check(t, netlink.LinkSetUp(peer))
	}
	return link.Attrs().Index
}

func address(t *testing.T, link int, cidr string) {
	t.Helper()
	a, err := netlink.ParseAddr(cidr)
	check(t, err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	check(t, netlink.AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: link}}, a))
}

// to is a route; without a gateway it is direct.
func to(cidr string, link int, via string) *netlink.Route {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err)
	}
	r := &netlink.Route{Dst: dst, LinkIndex: link, Scope: netlink.SCOPE_LINK}
	if via != "" {
		r.Gw, r.Scope, r.Flags = net.ParseIP(via), netlink.SCOPE_UNIVERSE, int(netlink.FLAG_ONLINK)
	}
	return r
}

// observer runs a watch.
type observer struct {
	*Links
	wake     wake.Signal
	appeared chan Host
	pods     []Pod
}

func observe(t *testing.T, o Options, pods ...string) *observer {
	t.Helper()
	w := &observer{Links: New(o), wake: wake.New(), appeared: make(chan Host, 10000)}
	for _, p := range pods {
		w.pods = append(w.pods, Pod{Addr: netip.MustParseAddr(p), Name: "a/" + p})
	}
	w.find(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Watch(ctx, w.wake, func(h Host) { w.appeared <- h }) }()
	t.Cleanup(func() {
		cancel()
		check(t, <-ended)
	})
	w.woken(t, "the subscription")
	w.settle(t)
	return w
}

// woken waits for a wake-up, and makes the next Find process it.
func (w *observer) woken(t *testing.T, why string) {
	t.Helper()
	select {
	case <-w.wake:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not noticed in 20 s", why)
	}
}

func (w *observer) find(t *testing.T) map[netip.Addr]inet.Path {
	t.Helper()
	found, err := w.Find(t.Context(), w.pods)
	check(t, err)
	return found
}

// settle waits until all earlier notifications were received: a route to an unwanted address is received
// without a wake-up.
func (w *observer) settle(t *testing.T) counts {
	t.Helper()
	link, err := netlink.LinkByName("pod0")
	check(t, err)
	r := to("198.51.100.77/32", link.Attrs().Index, "")
	check(t, netlink.RouteAdd(r))
	for h := range w.appeared {
		if h.Addr == netip.MustParseAddr("198.51.100.77") {
			break
		}
	}
	check(t, netlink.RouteDel(r))
	time.Sleep(3 * quiet)
	w.find(t)
	select {
	case <-w.wake:
	default:
	}
	w.gateways.mu.Lock()
	defer w.gateways.mu.Unlock()
	return w.gateways.counts
}

// A node that runs BGP has many routes, and many changes. They are not received, and no route is read
// because of them.
func TestRoutesOfOthersCostNothing(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		card, pod := pairTo(t, "card0", false), pairTo(t, "pod0", true)
		address(t, card, "172.30.0.11/24")
		address(t, card, "fd00:172:30::11/64")
		many := func(change func(*netlink.Route) error, from, to6 int) {
			for i := from; i < to6; i++ {
				check(t, change(to(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i)}), 24).String(), card,
					"172.30.0.1")))
				check(t, change(to(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 8), byte(i)}), 48).String(),
					card, "fd00:172:30::1")))
			}
		}
		many(netlink.RouteAdd, 0, 500)
		for _, dst := range []string{"10.244.1.5/32", "fd00:244:1::5/128"} {
			check(t, netlink.RouteAdd(to(dst, pod, "")))
		}
		w := observe(t, Options{Uplinks: []string{"card*"}}, "10.244.1.5", "fd00:244:1::5")
		before := w.settle(t)
		many(netlink.RouteAdd, 500, 1000)
		many(netlink.RouteReplace, 0, 1000)
		many(netlink.RouteDel, 0, 1000)
		pairTo(t, "pod1", true) // a pod starts
		after := w.settle(t)
		if heard := after.heard - before.heard; heard > 30 {
			t.Errorf("%d notifications were heard, want a few", heard)
		}
		if after.listed != before.listed || after.asked != before.asked {
			t.Errorf("%d routes were read in %d lists, want none", after.listed-before.listed, after.asked-before.asked)
		}
		for _, r := range []*netlink.Route{
			to("10.244.1.5/32", card, "172.30.0.1"), to("10.244.1.0/24", card, "172.30.0.1"),
			to("10.0.0.0/8", card, "172.30.0.1"),
			to("0.0.0.0/0", card, "172.30.0.1"), to("fd00:244:1::/64", card, "fd00:172:30::1"),
			to("fd00:244:1::4/127", card, "fd00:172:30::1"),
			to("fd00::/16", card, "fd00:172:30::1"), to("::/0", card, "fd00:172:30::1"), to("10.244.1.4/30", pod, ""),
		} {
			r.Priority = 5000
			check(t, netlink.RouteAdd(r))
			w.woken(t, r.String())
			w.settle(t)
			check(t, netlink.RouteDel(r))
			w.woken(t, "gone: "+r.String())
			w.settle(t)
		}
	})
}

// Whether an interface is an uplink follows its routes through gateways, in every table and however they
// are deleted.
func TestAnInterfaceLeadsOutAsLongAsAGatewayIsBehindIt(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		card, pod, other := pairTo(t, "card0", false), pairTo(t, "pod0", true), pairTo(t, "eth1", true)
		address(t, card, "172.30.0.11/24")
		check(t, netlink.RouteAdd(to("10.244.1.5/32", pod, "")))
		w := observe(t, Options{Uplinks: []string{"card*"}}, "10.244.1.5")
		out := func(why string, want bool) {
			t.Helper()
			w.woken(t, why)
			w.settle(t)
			if got := slices.Contains(w.Open(), "eth1"); got != want {
				t.Errorf("%s: leads out %t, want %t", why, got, want)
			}
		}
		policy := to("10.9.0.0/16", other, "10.9.9.9")
		policy.Table = 100
		check(t, netlink.RouteAdd(policy))
		out("a gateway in another table", true)
		check(t, netlink.RouteDel(policy))
		out("that is gone", false)

		check(t, netlink.RouteAdd(to("20.0.0.0/8", other, "10.9.9.9")))
		out("a network far from pods", true)
		check(t, netlink.RouteReplace(to("20.0.0.0/8", card, "172.30.0.1")))
		out("replaced by one elsewhere", false)

		check(t, netlink.RouteAdd(to("fd09::/64", other, "fd09:9::9")))
		out("a gateway of IPv6", true)
		check(t, netlink.RouteDel(to("fd09::/64", other, "fd09:9::9")))
		out("gone again", false)

		check(t, netlink.RouteAdd(to("10.9.0.0/16", other, "10.9.9.9")))
		out("a network behind a gateway", true)
		check(t, netlink.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: other}}))
		out("down, of which the kernel says nothing about routes", false)
	})
}

// An interface with an address of the Node object is an uplink, in whichever order the two are learned.
func TestTheNodesAddressesAreFollowed(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pod, other := pairTo(t, "pod0", true), pairTo(t, "eth1", true)
		address(t, other, "172.30.0.11/24")
		check(t, netlink.RouteAdd(to("10.244.1.5/32", pod, "")))
		w := observe(t, Options{}, "10.244.1.5")
		out := func(why string, want bool) {
			t.Helper()
			w.find(t)
			if got := slices.Contains(w.Open(), "eth1"); got != want {
				t.Errorf("%s: leads out %t, want %t", why, got, want)
			}
		}
		out("the Node is unknown", false)
		w.SetNodeAddresses([]netip.Addr{netip.MustParseAddr("172.30.0.11")})
		out("the Node has its address", true)
		w.SetNodeAddresses([]netip.Addr{netip.MustParseAddr("172.30.0.12")})
		out("the Node has another one", false)
		address(t, other, "172.30.0.12/32")
		w.woken(t, "the interface has got that")
		out("the interface has got that", true)
		w.SetNodeAddresses(nil)
		out("the Node has none", false)
	})
}
