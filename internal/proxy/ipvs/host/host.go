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
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// Problem is something that does not work as it should, and does not keep Services from being served.
type Problem struct{ Subject, Text, Cure string }

// Proxy owns podwall's virtual services and the addresses of Services in one network namespace, and leads
// packets to them by the tables, which it is given. All but Watch is called by one goroutine.
type Proxy struct {
	tables  *tables.Tables
	conn    *kernel.Conn
	routes  *routes
	sysctls sysctl.Dir
	log     *slog.Logger

	families [len(inet.Families)]*family
	missing  []string                    // schedulers that the kernel does not have, sorted
	actual   map[kernel.ID]kernel.Listed // what the kernel has; nil if it is not known
	taken    []kernel.ID                 // at which another program has a virtual service
	set      []Problem                   // what cannot be set on the node
	drains   atomic.Int32                // virtual services with connections whose end is awaited
}

// family is what is known of one family.
type family struct {
	inet.Family
	planner  ipvs.Planner
	local    map[netip.Addr]bool // addresses of Services that the node has; nil if it is not known
	draining []kernel.ID
	applied  bool // the kernel was brought to the plan before: what differs without a change is drift
}

// Open connects to the kernel, in the network namespace of the calling thread. The tables were opened with the
// setting IPVS; they stay the caller's to close. On a kernel without IPVS the error is kernel.ErrNone.
func Open(t *tables.Tables, sysctls sysctl.Dir, log *slog.Logger) (*Proxy, error) {
	conn, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	r, err := openRoutes()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p := &Proxy{tables: t, conn: conn, routes: r, sysctls: sysctls, log: log}
	for i, f := range inet.Families {
		p.families[i] = &family{Family: f}
	}
	return p, nil
}

// Close ends the connections to the kernel. What the kernel has stays.
func (p *Proxy) Close() error {
	p.routes.close()
	return p.conn.Close()
}

// Apply makes the kernel agree, as the tables' method of that name. What cannot be done for one virtual
// service does not keep others from their change.
func (p *Proxy) Apply(ctx context.Context, want tables.Desired) (tables.Report, error) {
	if err := p.settings(); err != nil {
		return tables.Report{}, err
	}
	t := turn{Proxy: p, want: want, known: p.actual != nil}
	if err := p.read(); err != nil {
		return tables.Report{}, err
	}
	for i, f := range p.families {
		t.enter(i, f)
	}
	p.noteTaken(t.taken)
	want.Tables = func(f inet.Family) *program.Program { return t.plans[index(f)].Tables }
	want.Entered = t.leave
	report, err := p.tables.Apply(ctx, want)
	report.Changes += t.ops
	report.Drift += t.drift
	report.Full = report.Full || !t.known
	if err = errors.Join(append(t.failed, err)...); err != nil {
		p.forget()
	}
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
	return p.tables.Verify()
}

// Changed receives when an Apply has something to do that no change of the model asks for.
func (p *Proxy) Changed() <-chan struct{} { return p.tables.Changed() }

// Counters returns what the tables rejected or dropped.
func (p *Proxy) Counters() (map[string]uint64, error) { return p.tables.Counters() }

// lookEach is how often is looked whether connections that are awaited have ended.
const lookEach = 5 * time.Second

// Watch has an Apply look for the end of connections to destinations that get no new ones, until ctx ends.
func (p *Proxy) Watch(ctx context.Context) error {
	beat := time.NewTicker(lookEach)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			if p.drains.Load() > 0 {
				p.tables.Wake()
			}
		}
	}
}

// noteTaken logs the virtual services of other programs that are in the way, once.
func (p *Proxy) noteTaken(list []kernel.ID) {
	for _, id := range list {
		if !slices.Contains(p.taken, id) {
			p.log.Error("another program has a virtual service where one of a Service should be", "at", id.String())
		}
	}
	p.taken = list
}

// Problems returns what does not work as it should after the last Apply.
func (p *Proxy) Problems() []Problem {
	list := slices.Clone(p.set)
	if n := len(p.taken); n > 0 {
		text := fmt.Sprintf("another program has a virtual service at %s", p.taken[0])
		if n > 1 {
			text += fmt.Sprintf(", and at %d more", n-1)
		}
		list = append(list, Problem{"virtual services of IPVS", text + ": Services are not served there",
			"stop that program and remove what it left (ipvsadm -C removes all virtual services; podwall's come back)"})
	}
	for _, name := range p.missing {
		list = append(list, Problem{"scheduler " + name, "the kernel does not have it: Services that ask for it get rr",
			"modprobe ip_vs_" + name + ", and restart the agent"})
	}
	return list
}
