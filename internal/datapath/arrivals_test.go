// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// pairAway makes a pair whose peer is in another network namespace.
func pairAway(t *testing.T, name string) {
	t.Helper()
	away, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = away.Close() }) // the process ends now
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(away.FD())}); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "set", name, "up")
}

// left waits until exactly these connections exist.
func left(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	ours := func() []string { // without the packets of interfaces that come up
		return slices.DeleteFunc(connections(t), func(l string) bool { return !strings.HasPrefix(l, "tcp ") && !strings.HasPrefix(l, "udp ") })
	}
	for end := time.Now().Add(patience); !slices.Equal(ours(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("connections are %q, want %q", ours(), want)
		}
	}
}

const (
	stranger = "10.244.1.77" // an address that no pod has yet
	friendly = "10.244.1.78" // the address of a known pod
)

func sampleProgram() *program.Program {
	p := isolated(first, second)
	p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr(friendly), Name: "shop/friend"})
	return p
}

func TestARouteToAStrangerEndsTheConnectionsFromBefore(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pairAway(t, "veth-a")
		run(t, "ip", "link", "add", "up0", "type", "bridge") // of others
		run(t, "ip", "link", "set", "up0", "up")
		d := open(t, Options{})
		connect(t, inet.UDP, first, stranger)
		connect(t, inet.UDP, friendly, stranger) // a known pod with an unknown address
		connect(t, inet.TCP, stranger, second)
		connect(t, inet.UDP, first, elsewhere)
		run(t, "ip", "route", "add", stranger, "dev", "veth-a") // before the watch listens
		run(t, "ip", "route", "add", elsewhere, "dev", "up0")
		apply(t, d, sampleProgram())
		connect(t, inet.UDP, first, friendly) // allowed by the rules
		watch(t, d)
		other, kept := line(inet.UDP, first, elsewhere), line(inet.UDP, first, friendly)
		left(t, other, kept)

		for _, a := range []string{stranger, friendly} {
			run(t, "ip", "route", "replace", a, "dev", "up0")
		}
		connect(t, inet.UDP, second, stranger)
		run(t, "ip", "route", "replace", friendly, "dev", "veth-a")
		run(t, "ip", "route", "replace", stranger, "dev", "veth-a")
		left(t, other, kept)
	})
}

// Entries deleted while there are no rules would be added again.
func TestArrivalsWaitForTheRulesAndAreLookedAtTwice(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		a, elsewhere := d.cuts.arrivals, func(link int) bool { return link == 1 }
		connect(t, inet.UDP, first, stranger)
		a.note(links.Host{Addr: netip.MustParseAddr(stranger), Link: 7})
		a.note(links.Host{Addr: netip.MustParseAddr(friendly), Link: 7})
		a.turn(elsewhere)
		left(t, line(inet.UDP, first, stranger))
		apply(t, d, sampleProgram())
		a.turn(elsewhere)
		left(t)
		connect(t, inet.UDP, first, stranger) // was in flight
		a.turn(elsewhere)
		left(t)
		a.turn(elsewhere)
		if len(a.newcomers.waiting) > 0 {
			t.Errorf("%v waits for ever", a.newcomers.waiting)
		}
	})
}

// The connection table cannot be read for a while.
func TestAnAddressThatCouldNotBeLookedForWaitsOn(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		apply(t, d, sampleProgram())
		a := d.cuts.arrivals
		if err := a.conn.Close(); err != nil {
			t.Fatal(err)
		}
		a.note(links.Host{Addr: netip.MustParseAddr(stranger), Link: 7})
		if err := a.turn(func(int) bool { return false }); err == nil || len(a.newcomers.waiting) != 1 {
			t.Errorf("error %v, %v waits", err, a.newcomers.waiting)
		}
	})
}

func TestWhereUnknownPodsAreOpenARouteEndsNothing(t *testing.T) {
	a := newArrivals(nil, slog.New(slog.DiscardHandler), false, nil)
	a.note(links.Host{Addr: netip.MustParseAddr(stranger), Link: 1})
	if len(a.newcomers.waiting) > 0 {
		t.Errorf("%v waits", a.newcomers.waiting)
	}
}

func TestRoutesThatWaitAreBounded(t *testing.T) {
	var log strings.Builder
	a := newArrivals(nil, slog.New(slog.NewTextHandler(&log, nil)), true, nil)
	for addr, n := netip.MustParseAddr("10.0.0.0"), 0; n < maxFresh+100; addr, n = addr.Next(), n+1 {
		a.note(links.Host{Addr: addr, Link: n})
	}
	waiting := len(a.newcomers.waiting)
	a.armed.Store(true)
	a.known.Store(&program.Program{})
	for range 2 {
		a.take(func(int) bool { return true })
	}
	if waiting != maxFresh || strings.Count(log.String(), "too many new host routes") != 1 {
		t.Errorf("%d wait, want %d; log %q", waiting, maxFresh, log.String())
	}
}

// alive holds the agent's lock, as a running agent does.
func alive(t *testing.T) (end func()) {
	t.Helper()
	l, err := net.Listen("unix", AgentLock)
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = l.Close() } // no data was sent
}

func TestTheSkeletonEndsTheConnectionsOfThePod(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		skeleton := func(addr string) {
			t.Helper()
			connect(t, inet.UDP, first, stranger)
			connect(t, inet.UDP, first, elsewhere)
			connect(t, inet.TCP, stranger, second)
			connect(t, inet.TCP, first, friendly)
			if err := Skeleton(t.Context(), []string{"veth0"}, []netip.Addr{netip.MustParseAddr(addr)}, log); err != nil {
				t.Fatal(err)
			}
		}
		nothing := func() {
			t.Helper()
			for _, addr := range []string{elsewhere, friendly} {
				if _, err := forgetHere(t.Context(), []netip.Addr{netip.MustParseAddr(addr)}); err != nil {
					t.Fatal(err)
				}
			}
			left(t)
		}
		skeleton(stranger) // on a node that has just booted
		left(t, line(inet.UDP, first, elsewhere), line(inet.TCP, first, friendly))
		nothing()

		apply(t, open(t, Options{}), sampleProgram())
		end := alive(t)
		before := listing(t)
		skeleton(stranger)
		left(t, line(inet.UDP, first, elsewhere), line(inet.TCP, first, friendly))
		if listing(t) != before {
			t.Errorf("with an agent the table changed:\n%s", listing(t))
		}
		end()
		nothing()

		skeleton(friendly) // the agent died, and another pod gets a pod's address
		left(t, line(inet.UDP, first, elsewhere), line(inet.UDP, first, stranger), line(inet.TCP, stranger, second))
		if to := run(t, "nft", "list", "map", "inet", "podwall", "pod-ingress4"); strings.Contains(to, friendly) || !strings.Contains(to, webPod) {
			t.Errorf("who is known:\n%s", to)
		}
		healthy(t, open(t, Options{}), sampleProgram()) // the next agent repairs it
		if to := run(t, "nft", "list", "map", "inet", "podwall", "pod-ingress4"); !strings.Contains(to, friendly) {
			t.Errorf("the next agent left it:\n%s", to)
		}
	})
}

// Pods programmed during a scan, which may take long, are left to the loop.
func TestAnAddressThatIsKnownMeanwhileIsLeftAlone(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		connect(t, inet.UDP, first, stranger)
		connect(t, inet.UDP, first, friendly)
		list := []netip.Addr{netip.MustParseAddr(stranger), netip.MustParseAddr(friendly)}
		n, err := forget(d.cuts.conn, list, nil, func(a netip.Addr) bool { return a.String() == friendly }, nil)
		if got := fmt.Sprint(n, err, connections(t)); got != fmt.Sprint(1, error(nil), []string{line(inet.UDP, first, friendly)}) {
			t.Error(got)
		}
	})
}

// A packet sent before the rules, which waits for the pod's hardware address, passes no hook any more.
func TestTheSkeletonDropsWhatWaitsForThePod(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		const pod, other = "10.9.0.2", "10.9.0.3"
		run(t, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
		run(t, "ip", "link", "set", "veth1", "up")
		run(t, "ip", "link", "set", "veth0", "up")
		run(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "veth0")
		for _, to := range []string{pod, other} {
			conn, err := net.Dial("udp", to+":7000")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }() // not needed any more
			if _, err := conn.Write([]byte("from before")); err != nil {
				t.Fatal(err)
			}
		}
		if err := Skeleton(t.Context(), []string{"veth0"}, []netip.Addr{netip.MustParseAddr(pod)}, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if left := run(t, "ip", "neigh"); strings.Contains(left, pod+" ") || !strings.Contains(left, other+" ") {
			t.Errorf("neighbours are left:\n%s", left)
		}
	})
}

// The scan for a pod's route may end after a pass has read the clean addresses and before its commit. Then
// no scan follows, and the loop must be woken.
func TestAPodIsFreedThatWasCleanBeforeItWasHeld(t *testing.T) {
	freed := 0
	a := newArrivals(nil, slog.New(slog.DiscardHandler), true, func() { freed++ })
	addr := netip.MustParseAddr(stranger)
	a.note(links.Host{Addr: addr, Link: 7})
	_, clean := a.clean()
	a.newcomers.take(func(netip.Addr, newcomer) bool { return true })
	if a.newcomers.done(nil, false); len(clean) > 0 || freed > 0 {
		t.Fatalf("%v are clean, %d freed", clean, freed)
	}
	held := decide.Held{Addrs: []netip.Addr{addr}, Link: map[netip.Addr]int{addr: 7}}
	if a.hold(held); freed != 1 {
		t.Errorf("freed %d times, want once", freed)
	}
}
