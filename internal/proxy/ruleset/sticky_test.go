// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// stickyFronts returns the sticky fronts of a protocol, with where clients connect.
func (w *world) stickyFronts(p inet.Protocol) map[program.Front]netip.AddrPort {
	return map[program.Front]netip.AddrPort{
		{Addr: w.sticky, Protocol: p, Port: port}: netip.AddrPortFrom(w.sticky, port),
		{Protocol: p, Port: stickyPort}:           netip.AddrPortFrom(w.node, stickyPort),
	}
}

// without returns the program without a backend of a front; the others move up.
func without(p *program.Program, f program.Front, gone program.Backend) *program.Program {
	next := *p
	r, _ := p.Route(f)
	list := p.Backends(f, program.Pick{Count: r.Inside.Count})
	next.Routes = next.Routes.Without(r)
	r.Inside.Count--
	r.Outside.Count--
	next.Routes = next.Routes.With(r)
	for i := range list {
		s, _ := p.Slot(f, uint16(i))
		next.Slots = next.Slots.Without(s)
	}
	n := uint16(0)
	for _, b := range list {
		if b != gone {
			next.Slots = next.Slots.With(program.Slot{Front: f, Number: n, Sticky: r.Sticky, Backend: b})
			n++
		}
	}
	return &next
}

// The kernel's first choice for each client is given to Eval; from then on both have to agree: a client
// comes back to its backend, until that goes.
func TestStickyClientsMeetWhatEvalSays(t *testing.T) {
	for _, family := range inet.Families {
		w := newWorld(t, family)
		for network, protocol := range map[string]inet.Protocol{"tcp": inet.TCP, "udp": inet.UDP} {
			for front, to := range w.stickyFronts(protocol) {
				var m program.Memory
				connect := func(from string) (met, want string, o program.Outcome) {
					f := flow{from, to}
					met = w.once(t, from, network, to)
					packet := program.Packet{Protocol: protocol, Src: w.addr(from), Dst: to.Addr(), DstPort: to.Port(),
						FromNode: from == ourNode}
					o, m = program.Eval(w.program, packet, m, func(n int) int {
						for i := range n {
							if o, _ := program.Eval(w.program, packet, program.Memory{}, func(int) int { return i }); w.meets(f, o) == met {
								return i
							}
						}
						return 0
					})
					return met, w.meets(f, o), o
				}
				clients := []string{localPod, office, stranger, ourNode}
				var last program.Outcome
				for _, from := range clients {
					for range 12 { // another choice would be the same one time in 2,048
						met, want, o := connect(from)
						if met != want {
							t.Fatalf("%s to %s: %s, want %s", from, front, met, want)
						}
						last = o
					}
				}
				all := w.program
				w.apply(t, without(all, front, last.Backend))
				for _, from := range clients {
					if met, want, o := connect(from); met != want || o.Backend == last.Backend {
						t.Errorf("%s to %s after %s went: %s, want %s", from, front, last.Backend, met, want)
					}
				}
				w.apply(t, all)
				for _, from := range clients {
					if met, want, _ := connect(from); met != want {
						t.Errorf("%s to %s after it came back: %s, want %s", from, front, met, want)
					}
				}
			}
		}
	}
}

// Each connection begins the client's time again.
func TestEachConnectionBeginsTheTimeAgain(t *testing.T) {
	for _, family := range inet.Families {
		w := newWorld(t, family)
		f := program.Front{Addr: w.sticky, Protocol: inet.TCP, Port: port}
		left := func() time.Duration {
			set := ruleset.AffinitySet(f, family, ruleset.Settings{})
			listing := nftrun.Run(t, w.endpoint(ourNode).NS, "", "list", "map", nft.FamilyFor(family).String(),
				ruleset.TableName, set.Name)
			_, rest, found := strings.Cut(listing, "expires ")
			if !found {
				t.Fatalf("nobody is remembered: %s", listing)
			}
			text, _, _ := strings.Cut(rest, " ")
			d, err := time.ParseDuration(text)
			check(t, err)
			return d
		}
		first := w.once(t, office, "tcp", netip.AddrPortFrom(w.sticky, port))
		const sticky, old, tick = 100 * time.Second, time.Second / 2, 20 * time.Millisecond
		for left() > sticky-old { // the kernel's clock is the witness
			time.Sleep(10 * time.Millisecond)
		}
		begun := time.Now()
		if again := w.once(t, office, "tcp", netip.AddrPortFrom(w.sticky, port)); again != first {
			t.Errorf("first %s, then %s", first, again)
		}
		// However slow the machine is: the time began after begun, and was read before now.
		if after := left(); after < sticky-time.Since(begun)-tick {
			t.Errorf("%s are left %s after the second connection began", after, time.Since(begun))
		}
	}
}

// Clients that are too many to remember meet every backend.
func TestAFullMemoryDoesNotStopClients(t *testing.T) {
	w := newWorld(t, inet.IPv4)
	check(t, w.conn.Delete())
	w.actual = ruleset.Render(w.program, ruleset.Settings{Affinity: 1})
	check(t, w.conn.Commit(nft.Diff(nil, w.actual)))
	to := netip.AddrPortFrom(w.sticky, port)
	first := w.once(t, localPod, "tcp", to)
	met := map[string]bool{}
	for range tries {
		if again := w.once(t, localPod, "tcp", to); again != first {
			t.Fatalf("the remembered client met %s, then %s", first, again)
		}
		if met[w.once(t, office, "tcp", to)] = true; len(met) == 2 {
			return
		}
	}
	t.Errorf("the client that is not remembered met only %v", met)
}

// A backend that is taken away after it was chosen leaves the first one of the choice, and nothing but
// silence if that is gone, too.
func TestAMissingSlotFallsToTheFirst(t *testing.T) {
	w := newWorld(t, inet.IPv4)
	f := program.Front{Addr: w.web, Protocol: inet.TCP, Port: port}
	to := netip.AddrPortFrom(w.web, port)
	takeAway := func(number uint16) {
		s, _ := w.program.Slot(f, number)
		less := *w.program
		less.Slots = less.Slots.Without(s)
		next := ruleset.Render(&less, ruleset.Settings{})
		check(t, w.conn.Commit(nft.Diff(w.actual, next)))
		w.program, w.actual = &less, next
	}
	takeAway(1)
	for range 12 {
		if met := w.once(t, localPod, "tcp", to); met != ownPod+" sees the client" {
			t.Fatalf("without the second backend: %s", met)
		}
	}
	takeAway(0)
	if met := w.once(t, localPod, "tcp", to); met != "dropped" {
		t.Errorf("without both: %s", met)
	}
	counters, err := w.conn.Counters()
	check(t, err)
	if counters[ruleset.CounterMissing] == 0 {
		t.Errorf("nothing is counted: %v", counters)
	}
}

// Without any Service the ranges are guarded already: the kernel walks a nat chain only once something in
// its namespace asks for connection tracking, and the postrouting chain does.
func TestRangesAreGuardedWithoutServices(t *testing.T) {
	for _, family := range inet.Families {
		w := bareWorld(t, family)
		w.apply(t, &program.Program{Family: family, ServiceRanges: w.example.program().ServiceRanges})
		for _, from := range []string{localPod, office} {
			if met := w.once(t, from, "tcp", netip.AddrPortFrom(w.web, port)); met != "dropped" {
				t.Errorf("%s: %s", from, met)
			}
		}
	}
}
