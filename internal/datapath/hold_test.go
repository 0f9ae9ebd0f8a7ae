// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// watched runs Watch and waits until it looks for newcomers.
func watched(t *testing.T, d *Datapath) {
	t.Helper()
	watch(t, d)
	until(t, "no scans next to the loop", d.cuts.arrivals.running.Load)
}

func until(t *testing.T, otherwise string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}

// settled applies until no pod is held, and returns how often one was.
func settled(t *testing.T, d *Datapath, p *program.Program) (held int) {
	t.Helper()
	for end := time.Now().Add(patience); ; held++ {
		if len(apply(t, d, p).Held) == 0 {
			return held
		}
		if time.Now().After(end) {
			t.Fatal("an address is held for ever")
		}
		woken(t, d)
	}
}

// withPod adds a pod that is not isolated.
func withPod(p *program.Program, addr, name string) *program.Program {
	p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr(addr), Name: name, Tenant: "shop"})
	slices.SortFunc(p.Pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
	return p
}

func isKnown(t *testing.T, addr string) bool {
	t.Helper()
	return strings.Contains(run(t, "nft", "list", "map", "inet", "podwall", "pod-ingress4"), addr+" ")
}

// loopIsBlind shows the loop the connection table of an empty network namespace: it must not depend on
// what it sees there. What scans next to it found it may still try to delete.
func loopIsBlind(t *testing.T, d *Datapath) {
	t.Helper()
	if err := d.cuts.conn.Close(); err != nil {
		t.Fatal(err)
	}
	empty, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = empty.Close() }) // it vanishes with the process
	if err := empty.Do(func() (err error) { d.cuts.conn, err = conntrack.Open(); return err }); err != nil {
		t.Fatal(err)
	}
}

func TestAPodWaitsForItsLookAloneAndTheLoopLooksNowhere(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		apply(t, d, isolated(first))
		connect(t, inet.UDP, first, stranger) // the policies would allow it
		connect(t, inet.UDP, first, webPod)
		watched(t, d)
		loopIsBlind(t, d)
		r := apply(t, d, withPod(isolated(first, second), stranger, "shop/next"))
		if len(r.Held) != 1 || isKnown(t, stranger) {
			t.Errorf("held are %v; the pod is known: %t", r.Held, isKnown(t, stranger))
		}
		if set := run(t, "nft", "list", "set", "inet", "podwall", "pods4-peers"); !strings.Contains(set, second) {
			t.Errorf("the other change waits too:\n%s", set)
		}
		settled(t, d, withPod(isolated(first, second), stranger, "shop/next"))
		left(t, line(inet.UDP, first, webPod))
		if !isKnown(t, stranger) {
			t.Error("the pod is not known")
		}
		connect(t, inet.UDP, first, stranger) // of its own
		apply(t, d, withPod(isolated(first), stranger, "shop/next"))
		run(t, "ip", "link", "set", "lo", "up")
		settled(t, d, withPod(isolated(first), stranger, "shop/next"))
		left(t, line(inet.UDP, first, webPod), line(inet.UDP, first, stranger))
	})
}

// noScanYet drops the results and requests of scans for an address, also those of a scan that runs: only a
// later request can make it clean.
func noScanYet(d *Datapath, addr string) {
	a := d.cuts.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	a.newcomers.listed(netip.MustParseAddr(addr))
}

// The route to a pod is added before the API names its address: one Apply programs it.
func TestAPodWhoseRouteCameFirstDoesNotWait(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pairAway(t, "veth-a")
		d := open(t, Options{})
		apply(t, d, isolated(first))
		connect(t, inet.UDP, first, stranger)
		watched(t, d)
		loopIsBlind(t, d)
		arrive := func() {
			t.Helper()
			noScanYet(d, stranger)
			run(t, "ip", "route", "replace", stranger, "dev", "veth-a")
			until(t, "no scan for the route's address", func() bool {
				_, addrs := d.cuts.arrivals.clean()
				found, clean := addrs[netip.MustParseAddr(stranger)]
				return clean && found.Link == links.IndexOf("veth-a")
			})
			left(t)
		}
		arrive()
		p := withPod(isolated(first), stranger, "shop/next")
		if r := apply(t, d, p); len(r.Held) > 0 || !isKnown(t, stranger) {
			t.Errorf("held are %v, the pod is known: %t", r.Held, isKnown(t, stranger))
		}
		if apply(t, d, isolated(first)); len(apply(t, d, p).Held) != 1 {
			t.Error("the next pod with the address does not wait, although its route is not new")
		}
		apply(t, d, isolated(first))
		run(t, "ip", "route", "del", stranger)
		arrive()
		if r := apply(t, d, p); len(r.Held) > 0 {
			t.Errorf("held are %v", r.Held)
		}
	})
}

// An address moves from one pod to another in one change. The first pod's connections are deleted before
// the second is programmed, which is closed until then.
func TestAnAddressThatMovesIsClosedInBetween(t *testing.T) {
	for name, o := range map[string]Options{"closed": {}, "open": {Options: decide.Options{OpenUnknown: true}}, "bridge with an uplink": {}} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				listed := o.OpenUnknown
				if name == "bridge with an uplink" {
					listed = true
					for _, command := range []string{"link add br0 type bridge", "link set br0 up", "addr add 10.244.1.1/24 dev br0",
						"route add default via 10.244.1.254 dev br0"} {
						run(t, "ip", strings.Fields(command)...)
					}
				}
				d := open(t, o)
				apply(t, d, withPod(isolated(first), stranger, "shop/last"))
				watched(t, d)
				loopIsBlind(t, d)
				connect(t, inet.UDP, first, stranger)
				next := withPod(isolated(first), stranger, "shop/next")
				r := apply(t, d, next)
				closed := !isKnown(t, stranger)
				if listed {
					closed = strings.Contains(run(t, "nft", "list", "map", "inet", "podwall", "pod-ingress4"), "jump held-ingress4")
				}
				if len(r.Held) != 1 || !closed {
					t.Errorf("held are %v, closed: %t\n%s", r.Held, closed, listing(t))
				}
				settled(t, d, next)
				left(t)
				a := d.cuts.arrivals
				a.mu.Lock()
				if a.since.IsZero() {
					t.Error("the log says that the address waited since the year 1")
				}
				a.mu.Unlock()
				if !isKnown(t, stranger) || strings.Contains(listing(t), "held-") {
					t.Errorf("the pod is not known as it is:\n%s", listing(t))
				}
			})
		})
	}
}
