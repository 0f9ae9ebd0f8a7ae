// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// variants are programs in which the Service has other backends, in other places: both servers serve all the
// time, so whoever connects must meet one.
func (w *world) variants() []*program.Program {
	p := w.example.program()
	f := program.Front{Addr: w.web, Protocol: inet.TCP, Port: port}
	own, far := program.Backend{Addr: w.example.own, Port: target}, program.Backend{Addr: w.far, Port: target}
	onlyFar, onlyOwn := without(p, f, own), without(p, f, far)
	swapped := *p
	r, _ := p.Route(f)
	for i, b := range []program.Backend{far, own, far, own, far} {
		if s, ok := p.Slot(f, uint16(i)); ok {
			swapped.Slots = swapped.Slots.Without(s)
		}
		swapped.Slots = swapped.Slots.With(program.Slot{Front: f, Number: uint16(i), Backend: b})
	}
	swapped.Routes = swapped.Routes.Without(r)
	r.Inside.Count, r.Outside = 5, program.Pick{First: 2, Count: 3, Masquerade: program.Always}
	swapped.Routes = swapped.Routes.With(r)
	return []*program.Program{p, onlyFar, &swapped, onlyOwn, onlyFar, &swapped}
}

// Clients connect without a pause while the backends change: each of them is answered by one that the
// Service has had, and after a change by one that it has.
func TestNobodyIsLostWhileBackendsChange(t *testing.T) {
	const clients, rounds = 3, 40
	w := newWorld(t, inet.IPv4)
	to := netip.AddrPortFrom(w.web, port)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wait sync.WaitGroup
	var connections atomic.Int64
	for i := range clients {
		from := []string{localPod, office, ourNode}[i]
		wait.Go(func() {
			for ctx.Err() == nil {
				answer, err := w.connect(ctx, from, "tcp", to)
				if ctx.Err() != nil {
					return
				}
				if err != nil || answer == refused {
					t.Errorf("%s: %q, %v", from, answer, err)
					return
				}
				connections.Add(1)
			}
		})
	}
	for range rounds {
		for _, p := range w.variants() {
			w.apply(t, p)
			f := flow{localPod, to}
			if got, want := w.once(t, f.from, "tcp", f.to), w.expect(f, inet.TCP); !want[got] {
				t.Fatalf("after a change: %s, want one of %v", got, want)
			}
		}
	}
	stop()
	wait.Wait()
	counters, err := w.conn.Counters()
	check(t, err)
	t.Logf("%d connections, %d changes; %d packets met a slot that was just taken away", connections.Load(),
		rounds*len(w.variants()), counters[ruleset.CounterMissing])
	if connections.Load() < clients*rounds {
		t.Errorf("only %d connections: nothing was tried", connections.Load())
	}
}

// Whatever others do to the table is found by reading it, and repaired by the difference.
func TestDamageIsRepaired(t *testing.T) {
	for _, e := range examples() {
		want := ruleset.Render(e.program(), ruleset.Settings{})
		ns := nftrun.Namespace(t)
		c := connIn(t, ns, e.family)
		if err := c.Commit(nft.Diff(nil, want)); err != nil {
			t.Fatal(err)
		}
		table := nft.FamilyFor(e.family).String() + " " + ruleset.TableName + " "
		backend := e.web.String() + " . tcp . 80 . 1"
		for _, damage := range []string{
			"flush map " + table + "backends",
			"delete element " + table + "backends { " + backend + " }",
			"delete element " + table + "backends { " + backend + " }; add element " + table + "backends { " + backend +
				" : " + e.office.String() + " . 22 }",
			"add element " + table + "backends { " + e.unused.String() + " . tcp . 80 . 0 : " + e.office.String() + " . 22 }",
			"delete element " + table + "services { " + e.web.String() + " . tcp . 80 }",
			"add element " + table + "services { " + e.unused.String() + " . tcp . 80 : accept }",
			"delete element " + table + "vips { " + e.web.String() + " }",
			"flush set " + table + "cluster-pods",
			"flush chain " + table + "pick-2",
			"insert rule " + table + "prerouting accept",
			"add chain " + table + "other",
			"add set " + table + "other { type mark; }",
			"add map " + table + "other { type mark : mark; }",
			"delete table " + table,
		} {
			nftrun.Run(t, ns, strings.ReplaceAll(damage, "; add", "\nadd")+"\n", "-f", "-")
			got, err := c.Read()
			if err != nil {
				t.Fatalf("%s: %v", damage, err)
			}
			ops := nft.Diff(got, want)
			if len(ops) == 0 {
				t.Errorf("%s: is not seen", damage)
			}
			if err := c.Commit(ops); err != nil {
				t.Fatalf("%s: %v", damage, err)
			}
			inKernel(t, damage, c, want)
		}
	}
}
