// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/ipvs/host"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	services "github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/stale"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// balanced serves the world by IPVS, as an agent does.
type balanced struct {
	tables  *tables.Tables
	proxy   *host.Proxy
	conn    *kernel.Conn
	serving stale.Serving
}

// newBalanced makes a world that is served by IPVS, without a program.
func newBalanced(t *testing.T, f inet.Family) *world {
	t.Helper()
	w := bareWorld(t, f)
	check(t, w.conn.Close()) // the tables have connections of their own
	w.ipvs = w.startIPVS(t)
	w.conn = connIn(t, w.endpoint(ourNode).NS, f)
	return w
}

// startIPVS starts the proxy, as a new process would.
func (w *world) startIPVS(t *testing.T) *balanced {
	t.Helper()
	b := &balanced{}
	err := w.endpoint(ourNode).NS.Do(func() (err error) {
		log := slog.New(slog.DiscardHandler)
		if b.tables, err = tables.Open(ruleset.Settings{IPVS: true}, new(nft.Tally), log); err != nil {
			return err
		}
		if b.proxy, err = host.Open(b.tables, host.Settings{}, log); err != nil {
			return errors.Join(err, b.tables.Close())
		}
		b.conn, err = kernel.Open()
		return err
	})
	if errors.Is(err, kernel.ErrNone) && os.Getenv("PODWALL_IPVS") != "true" {
		t.Skip("this kernel has no IPVS: run `make vm`")
	}
	check(t, err)
	t.Cleanup(func() { check(t, errors.Join(b.conn.Close(), b.proxy.Close(), b.tables.Close())) })
	return b
}

// model has a program for the family of the world, and none for the other.
func (w *world) model(p *program.Program) *services.Model {
	if w.family == inet.IPv6 {
		return &services.Model{IPv4: &program.Program{Family: inet.IPv4}, IPv6: p}
	}
	return &services.Model{IPv4: p, IPv6: &program.Program{Family: inet.IPv6}}
}

// apply brings a program into the kernel.
func (b *balanced) apply(t *testing.T, w *world, p *program.Program) int {
	t.Helper()
	model := w.model(p)
	var r tables.Report
	check(t, w.endpoint(ourNode).NS.Do(func() (err error) {
		want := tables.Desired{Model: model, Own: w.isOwn, Serving: b.serving}
		r, err = b.proxy.Apply(t.Context(), want)
		for err == nil && r.Later > 0 {
			time.Sleep(r.Later)
			var next tables.Report
			next, err = b.proxy.Apply(t.Context(), want)
			r = r.And(next)
		}
		return err
	}))
	check(t, r.Unsettled)
	if problems := b.proxy.Problems(); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	w.program = p
	return r.Ended
}

// Packets meet by IPVS what Eval says, as by the tables alone. None goes to a pod itself: if it had the port
// of a connection of the same client through IPVS, its answers would be taken for those of that one.
func TestPacketsMeetWhatEvalSaysByIPVS(t *testing.T) {
	for _, f := range inet.Families {
		t.Run(map[inet.Family]string{inet.IPv4: "ipv4", inet.IPv6: "ipv6"}[f], func(t *testing.T) {
			w := newBalanced(t, f)
			w.apply(t, w.example.program())
			for _, network := range []string{"tcp", "udp"} {
				for _, f := range w.flows() {
					if a := f.to.Addr(); a != w.own && a != w.far {
						w.verify(t, f, network)
					}
				}
			}
		})
	}
}

// heldPort is where backends keep connections.
const heldPort = 8081

// hold has a backend accept connections, and answer each line on them with its name.
func (w *world) hold(t *testing.T, name string) {
	t.Helper()
	l, err := w.endpoint(name).NS.Listen(t.Context(), "tcp", netip.AddrPortFrom(w.addr(name), heldPort).String())
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer func() { _ = c.Close() }()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					if _, err := fmt.Fprintln(c, name); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// held is a connection of a client that stays.
type held struct {
	net.Conn
	lines *bufio.Reader
}

// dial opens one to the front web.
func (w *world) dial(t *testing.T, from string) *held {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := w.endpoint(from).NS.Dial(ctx, "tcp", netip.AddrPortFrom(w.web, port).String())
	check(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some are closed before
	return &held{c, bufio.NewReader(c)}
}

// ask returns the name of the backend at the other end.
func (h *held) ask() (string, error) {
	if err := h.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(h, "who are you?"); err != nil {
		return "", err
	}
	line, err := h.lines.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (h *held) mustAsk(t *testing.T) string {
	t.Helper()
	name, err := h.ask()
	check(t, err)
	return name
}

// reset ends the connection so that IPVS forgets it soon.
func (h *held) reset(t *testing.T) {
	t.Helper()
	check(t, h.Conn.(*net.TCPConn).SetLinger(0))
	check(t, h.Close())
}

// holding returns the program of a world whose front web has these backends that keep connections.
func (w *world) holding(schedule program.Schedule, sticky program.Seconds, names ...string) *program.Program {
	p := w.example.program()
	front := program.Front{Addr: w.web, Protocol: inet.TCP, Port: port}
	none := *p
	for r := range p.Routes.All() {
		none.Routes = none.Routes.Without(r)
	}
	for s := range p.Slots.All() {
		none.Slots = none.Slots.Without(s)
	}
	pick := program.Pick{Otherwise: program.Reject}
	if len(names) > 0 {
		pick = program.Pick{Count: uint16(len(names)), Masquerade: program.Strangers}
	}
	none.Routes = none.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick, Schedule: schedule, Sticky: sticky})
	for i, name := range names {
		none.Slots = none.Slots.With(program.Slot{Front: front, Number: uint16(i), Sticky: sticky,
			Backend: program.Backend{Addr: w.addr(name), Port: heldPort}})
	}
	return &none
}

// newHolding makes a world with two backends that keep connections.
func newHolding(t *testing.T, f inet.Family) *world {
	t.Helper()
	w := newBalanced(t, f)
	w.hold(t, ownPod)
	w.hold(t, farPod)
	return w
}

// virtual returns what the kernel has of the front web.
func (w *world) virtual(t *testing.T) (kernel.Listed, bool) {
	t.Helper()
	list, err := w.ipvs.conn.List()
	check(t, err)
	i := slices.IndexFunc(list, func(s kernel.Listed) bool { return s.Addr == w.web })
	if i < 0 {
		return kernel.Listed{}, false
	}
	return list[i], true
}

// Each scheduler chooses as its name says.
func TestSchedulersOfIPVS(t *testing.T) {
	w := newHolding(t, inet.IPv4)
	for _, tt := range []struct {
		schedule program.Schedule
		check    func(t *testing.T)
	}{
		{program.Schedule{}, w.inTurn},
		{program.Schedule{Scheduler: program.LeastConnection}, w.toTheIdle},
		{program.Schedule{Scheduler: program.SourceHash}, w.byClient},
		{program.Schedule{Scheduler: program.SourceHash, Options: program.Fallback}, w.byClient},
		{program.Schedule{Scheduler: program.DestinationHash}, w.byClient}, // one front, so one backend
		{program.Schedule{Scheduler: program.Maglev}, w.byClient},
		{program.Schedule{Scheduler: program.Maglev, Options: program.ByPort}, w.byClientsPort},
	} {
		t.Run(tt.schedule.String(), func(t *testing.T) {
			w.apply(t, w.holding(tt.schedule, 0, ownPod, farPod))
			if s, _ := w.virtual(t); s.Scheduler != tt.schedule.Scheduler.String() {
				t.Fatalf("the kernel has the scheduler %q", s.Scheduler)
			}
			tt.check(t)
		})
	}
}

// answers returns how many of some connections of a client each backend gets.
func (w *world) answers(t *testing.T, from string, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		h := w.dial(t, from)
		got[h.mustAsk(t)]++
		h.reset(t)
	}
	return got
}

func (w *world) inTurn(t *testing.T) {
	if got := w.answers(t, localPod, 10); got[ownPod] != 5 || got[farPod] != 5 {
		t.Errorf("ten connections in turn: %v", got)
	}
}

func (w *world) toTheIdle(t *testing.T) {
	a, b := w.dial(t, localPod), w.dial(t, stranger)
	first, second := a.mustAsk(t), b.mustAsk(t)
	if first == second {
		t.Errorf("both go to %s", first)
	}
	b.reset(t)
	for range 3 { // the other one is idle, whatever it forgets meanwhile
		c := w.dial(t, localPod)
		if got := c.mustAsk(t); got != second {
			t.Errorf("a connection goes to %s, which has one, and %s has none", got, second)
		}
		c.reset(t)
	}
	a.reset(t)
}

func (w *world) byClient(t *testing.T) {
	for _, from := range []string{localPod, stranger} {
		if got := w.answers(t, from, 6); len(got) != 1 {
			t.Errorf("one client meets %v", got)
		}
	}
}

func (w *world) byClientsPort(t *testing.T) {
	got := map[string]int{}
	for range tries {
		for name, n := range w.answers(t, localPod, 1) {
			got[name] += n
		}
		if len(got) == 2 {
			return
		}
	}
	t.Errorf("one client from %d ports meets %v only", tries, got)
}

// A client of a Service with affinity comes back to its backend, and to another one when that has gone.
func TestAffinityOfIPVS(t *testing.T) {
	for _, f := range inet.Families {
		t.Run(map[inet.Family]string{inet.IPv4: "ipv4", inet.IPv6: "ipv6"}[f], func(t *testing.T) {
			w := newHolding(t, f)
			w.apply(t, w.holding(program.Schedule{}, 100, ownPod, farPod))
			met := map[string]bool{}
			for _, from := range []string{localPod, stranger} {
				got := w.answers(t, from, 6)
				if len(got) != 1 {
					t.Fatalf("%s meets %v", from, got)
				}
				for name := range got {
					met[name] = true
				}
			}
			if len(met) != 2 {
				t.Errorf("two clients meet %v", met)
			}
			w.apply(t, w.holding(program.Schedule{}, 100, farPod))
			for _, from := range []string{localPod, stranger} {
				if got := w.answers(t, from, 3); got[farPod] != 3 {
					t.Errorf("after the other backend went %s meets %v", from, got)
				}
			}
		})
	}
}
