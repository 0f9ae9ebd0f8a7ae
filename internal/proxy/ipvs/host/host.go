// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package host serves Services by IPVS: it brings the plans of package ipvs into the kernel, virtual services
// and tables in the order in which no client finds one without the other, and the addresses of Services among
// those of the node, without which IPVS does not see their packets.
//
// It decides nothing: a plan says what there shall be, and Diff what to change. Nothing is removed when the
// agent stops.
package host

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// Settings are the operator's.
type Settings struct {
	Sysctls sysctl.Dir
	// Timeouts are set in the kernel; zeros leave what it has.
	Timeouts kernel.Timeouts
}

// Problem is something that does not work as it should, and does not keep Services from being served.
type Problem struct{ Subject, Text, Cure string }

// Proxy owns podwall's virtual services and the addresses of Services in one network namespace, and leads
// packets to them by the tables, which it is given. All but Watch is called by one goroutine.
type Proxy struct {
	tables  *tables.Tables
	conn    conn
	counter conn // Watch's own connection
	routes  *routes
	wants   Settings
	log     *slog.Logger

	families [len(inet.Families)]*family
	missing  []string                    // schedulers that the kernel did not have since Verify, sorted
	lacked   []string                    // those of them that Services ask for
	actual   map[kernel.ID]kernel.Listed // what the kernel has; nil if it is not known
	taken    map[kernel.ID]bool          // at which another program has a virtual service
	refused  map[kernel.ID]error         // what the kernel refused; an address has no port
	without  map[kernel.ID]bool          // virtual services that it refused since Verify: the tables serve
	set      []Problem                   // what cannot be set on the node
	drains   atomic.Int32                // virtual services with connections whose end is awaited
	held     atomic.Int64                // our virtual services after the last Apply; 0 if not known
	lost     atomic.Bool                 // some of them were gone when Watch counted, or one of blocked was free
	blocked  atomic.Pointer[[]kernel.ID] // a copy of taken after the last Apply, for Watch
}

// conn is a connection to IPVS: kernel.Conn.
type conn interface {
	Services() ([]kernel.Service, error)
	List() ([]kernel.Listed, error)
	Destinations(kernel.ID) ([]kernel.Held, error)
	Timeouts() (kernel.Timeouts, error)
	SetTimeouts(kernel.Timeouts) error
	Do(kernel.Op) error
	Close() error
}

// family is what is known of one family.
type family struct {
	inet.Family
	planner  ipvs.Planner
	local    map[netip.Addr]netip.Addr // addresses of Services that the node has, with their sources; or nil
	source   netip.Addr                // with which the node connects to them
	draining []kernel.ID
	awaited  map[kernel.ID]bool // with destinations that come after the table
	applied  bool               // the kernel was brought to the plan before: what differs without a change is drift
}

// Open connects to the kernel, in the network namespace of the calling thread. The tables were opened with the
// setting IPVS; they stay the caller's to close. On a kernel without IPVS the error is kernel.ErrNone.
func Open(t *tables.Tables, s Settings, log *slog.Logger) (*Proxy, error) {
	of, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	counter, err := kernel.Open()
	if err != nil {
		return nil, errors.Join(err, of.Close())
	}
	r, err := openRoutes()
	if err != nil {
		return nil, errors.Join(err, of.Close(), counter.Close())
	}
	return with(t, of, counter, r, s, log), nil
}

// with returns the proxy with its connections.
func with(t *tables.Tables, of, counter conn, r *routes, s Settings, log *slog.Logger) *Proxy {
	p := &Proxy{tables: t, conn: of, counter: counter, routes: r, wants: s, log: log,
		taken: map[kernel.ID]bool{}, refused: map[kernel.ID]error{}, without: map[kernel.ID]bool{}}
	for i, f := range inet.Families {
		p.families[i] = &family{Family: f, awaited: map[kernel.ID]bool{}}
	}
	return p
}

// Close ends the connections to the kernel. What the kernel has stays.
func (p *Proxy) Close() error {
	p.routes.close()
	return errors.Join(p.conn.Close(), p.counter.Close())
}

// Apply makes the kernel agree, as the tables' method of that name. What the kernel refuses for one virtual
// service or address is one of Problems and no error: others are served, and it is tried again after Verify.
func (p *Proxy) Apply(ctx context.Context, want tables.Desired) (tables.Report, error) {
	if err := p.settings(); err != nil {
		return tables.Report{}, err
	}
	p.held.Store(0)
	p.blocked.Store(nil)
	if p.lost.Swap(false) {
		p.forget()
	}
	t := turn{Proxy: p, want: want, known: p.actual != nil, drift: map[kernel.ID]bool{}}
	if err := p.read(); err != nil {
		return tables.Report{}, err
	}
	for i, f := range p.families {
		t.enter(i, f)
	}
	if len(t.failed) > 0 { // the tables would lead to what is not there, and to programs of the node
		p.forget()
		return tables.Report{Changes: t.ops}, errors.Join(t.failed...)
	}
	want.Tables = func(f inet.Family) *program.Program { return t.plans[index(f)].Tables }
	want.Entered = t.leave
	report, err := p.tables.Apply(ctx, want)
	report.Changes += t.ops
	report.Drift += len(t.drift)
	report.Full = report.Full || !t.known
	if err != nil || t.stale {
		p.forget()
	}
	p.lacked = asked(want.Model.Program, p.missing)
	p.held.Store(owned(p.actual))
	blocked := slices.Collect(maps.Keys(p.taken))
	p.blocked.Store(&blocked)
	p.drains.Store(int32(len(p.families[0].draining) + len(p.families[1].draining)))
	return report, err
}

func index(f inet.Family) int { return slices.Index(inet.Families[:], f) }

// forget has the next Apply read what the kernel has.
func (p *Proxy) forget() {
	p.actual = nil
	for _, f := range p.families {
		f.local = nil
	}
}

// read reads virtual services and addresses, unless they are known.
func (p *Proxy) read() error {
	if p.actual == nil {
		list, err := p.conn.List()
		if err != nil {
			return err
		}
		p.actual = map[kernel.ID]kernel.Listed{}
		for _, s := range list {
			if s.Mark == 0 {
				p.actual[s.ID] = s
			}
		}
	}
	for _, f := range p.families {
		if f.local != nil {
			continue
		}
		local, err := p.routes.list(f.Family)
		if err != nil {
			p.actual = nil
			return err
		}
		f.local = local
	}
	return nil
}

// Verify makes the next Apply compare everything with the kernel: it does not tell who changes IPVS.
func (p *Proxy) Verify() error {
	p.forget()
	p.missing = nil // a module may have come
	clear(p.without)
	return p.tables.Verify()
}

// Changed receives when an Apply has something to do that no change of the model asks for.
func (p *Proxy) Changed() <-chan struct{} { return p.tables.Changed() }

// Counters returns what the tables rejected or dropped.
func (p *Proxy) Counters() (map[string]uint64, error) { return p.tables.Counters() }
