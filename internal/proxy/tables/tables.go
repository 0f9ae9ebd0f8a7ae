// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package tables brings the service proxy's programs into the kernel: the tables of both families, the
// clients that Services with affinity remember, and the entries of the connection table. It is the proxy's
// write side; all effects of the proxy on nftables and on connections are here.
//
// It decides nothing: ruleset renders the tables and names the clients to forget, stale names the
// connections to end. Nothing is removed when the agent stops.
package tables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/stale"
)

// Tables owns the tables of Services in one network namespace. Apply, Verify, Counters and Close are called
// by one goroutine; Watch runs in another.
type Tables struct {
	settings ruleset.Settings
	log      *slog.Logger
	conn     *nft.Conn // to the table of IPv4; that of IPv6 is reached over the same socket
	entries  *conntrack.Conn
	broken   bool // something failed, so the connections may be out of step
	families [len(inet.Families)]table
	events
	generation   uint32 // of the kernel's nftables, up to which the tables are known
	transactions uint32 // how many of ours are included in it
}

// Desired is what the kernel shall hold.
type Desired struct {
	Model *service.Model
	// Own reports whether an address is one of the node's.
	Own func(netip.Addr) bool
	// Serving reports whether a backend may keep the clients that it has, although no new ones go to it. Nil
	// means that none may.
	Serving stale.Serving
}

// Report says what an Apply found and did.
type Report struct {
	Full      bool // a table was read from the kernel first
	Changes   int  // operations sent
	Elements  int  // elements in them
	Drift     int  // differences that other programs made
	Forgotten int  // clients with affinity whose backend went
	Ended     int  // entries of the connection table whose backend went
}

// Open connects to the kernel, in the network namespace of the calling thread.
func Open(settings ruleset.Settings, log *slog.Logger) (*Tables, error) {
	conn, err := nft.Open(0, ruleset.Table(inet.IPv4))
	if err != nil {
		return nil, err
	}
	entries, err := conntrack.Open()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	t := &Tables{settings: settings, log: log, conn: conn, entries: entries}
	t.events.init(conn.PortID())
	return t, nil
}

// Close ends the connections to the kernel. The tables stay.
func (t *Tables) Close() error { return errors.Join(t.conn.Close(), t.entries.Close()) }

// Apply makes the kernel agree. Repeated with the same model it sends nothing. A failure in one family does
// not keep the other from its change. After an error the kernel has what it had, or a part of a large
// change; the next Apply reads it back.
func (t *Tables) Apply(ctx context.Context, want Desired) (Report, error) {
	var report Report
	if err := t.renew(); err != nil {
		return report, err
	}
	if err := t.hear(); err != nil {
		return report, t.trust(err)
	}
	var failed []error
	for i, f := range inet.Families {
		if err := t.apply(ctx, &t.families[i], want.Model.Program(f), want, &report); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", ruleset.Table(f), err))
		}
	}
	return report, t.trust(errors.Join(failed...))
}

// Verify makes the next Apply compare both tables with the kernel, if anything in the kernel's nftables
// changed that was not ours. It reports whether an Apply has something to do.
func (t *Tables) Verify() error {
	if err := t.renew(); err != nil {
		return err
	}
	g, err := t.conn.Generation()
	if err == nil && g != t.generation {
		t.note(nft.Notice{Table: true})
	}
	return t.trust(err)
}

// Counters returns the packets that the tables rejected or dropped, by counter name, of both families.
func (t *Tables) Counters() (map[string]uint64, error) {
	if err := t.renew(); err != nil {
		return nil, err
	}
	sum := map[string]uint64{}
	for _, id := range ruleset.Tables() {
		list, err := t.conn.Of(id).Counters()
		if err != nil {
			return nil, t.trust(err)
		}
		for name, n := range list {
			sum[name] += n
		}
	}
	return sum, nil
}

// trust notes from the error whether the connections are still usable, and returns the error.
func (t *Tables) trust(err error) error {
	t.broken = t.broken || err != nil
	return err
}

// renew reconnects if something failed since the last call.
func (t *Tables) renew() error {
	if !t.broken {
		return nil
	}
	if err := t.conn.Renew(); err != nil {
		return err
	}
	t.port.Store(t.conn.PortID())
	entries, err := conntrack.Open()
	if err != nil {
		return err
	}
	old := t.entries
	t.entries, t.broken = entries, false
	return old.Close()
}

// hear takes the pending notices. Lost ones can be ignored if the generation shows that all transactions
// were ours.
func (t *Tables) hear() error {
	n := t.take()
	if n.Lost && !n.Table {
		g, err := t.conn.Generation()
		if n.Table = err != nil || g != t.generation; err != nil {
			t.forgetTables()
			return err
		}
	}
	if n.Table {
		t.forgetTables()
	}
	return nil
}

func (t *Tables) forgetTables() {
	for i := range t.families {
		t.families[i].known = false
	}
}

// table is what is known of the table of one family.
type table struct {
	renderer ruleset.Renderer
	actual   *nft.Table // what the kernel holds, nil for no table
	known    bool       // actual can be trusted
	wrote    *nft.Table // the last commit of this process: other differences are drift
	// settled is the program to which the remembered clients and the connections agree; nil if they may
	// have begun under any program, or under none.
	settled *program.Program
}

// apply brings one table to its program, then ends what the change left behind.
func (t *Tables) apply(ctx context.Context, f *table, p *program.Program, want Desired, report *Report) error {
	conn := t.conn.Of(ruleset.Table(p.Family))
	if err := t.read(ctx, conn, f, report); err != nil {
		return err
	}
	desired := f.renderer.Render(p, t.settings)
	ops := nft.Diff(f.actual, desired)
	if err := conn.CommitUntil(ctx, ops); err != nil {
		f.known, f.wrote = false, nil
		return err
	}
	report.Changes += len(ops)
	for _, op := range ops {
		report.Elements += op.Elements()
	}
	f.actual, f.wrote = desired, desired
	if err := t.committed(len(ops)); err != nil {
		return err
	}
	return t.settle(conn, f, p, want, report)
}

// read reads a table from the kernel, unless it is known.
func (t *Tables) read(ctx context.Context, conn *nft.Conn, f *table, report *Report) error {
	if f.known {
		return nil
	}
	g, err := conn.Generation() // first: changes during the reading count as unknown
	if err != nil {
		return err
	}
	actual, err := conn.ReadUntil(ctx)
	if err != nil {
		return err
	}
	report.Full = true
	if f.wrote != nil {
		drift := len(nft.Diff(actual, f.wrote))
		report.Drift += drift
		if drift > 0 {
			f.settled = nil // connections began without our rules, or with other ones
		}
	}
	f.actual, f.known = actual, true
	t.generation, t.transactions = g, t.conn.Transactions()
	return nil
}

// committed counts the generation of a commit as known, if all transactions since the last one were ours:
// otherwise Verify compares.
func (t *Tables) committed(changes int) error {
	if changes == 0 {
		return nil
	}
	g, err := t.conn.Generation()
	if err != nil {
		return err
	}
	if taken := t.conn.Transactions(); g == t.generation+taken-t.transactions {
		t.generation, t.transactions = g, taken
	}
	return nil
}

// settle forgets the clients of backends that went, and ends connections that would go on to them. It runs
// after the change is in the kernel: until then clients are sent there.
func (t *Tables) settle(conn *nft.Conn, f *table, p *program.Program, want Desired, report *Report) error {
	if f.settled == p {
		return nil
	}
	forgotten, err := ruleset.Forget(conn, p, ruleset.StickyChanges(f.settled, p), t.settings, want.Own)
	report.Forgotten += forgotten
	if err != nil {
		return err
	}
	ended, err := t.end(stale.After(f.settled, p, want.Serving), p.Family)
	report.Ended += ended
	if err != nil {
		return err
	}
	f.settled = p
	return nil
}

// end deletes the entries of the connection table that a change made stale.
func (t *Tables) end(judge *stale.Judge, f inet.Family) (ended int, err error) {
	if !judge.Needed() {
		return 0, nil
	}
	var list []inet.Connection
	err = t.entries.Dump(f, func(e *inet.Connection) {
		if judge.Stale(*e) {
			list = append(list, *e)
		}
	})
	if err != nil {
		return 0, err
	}
	return t.entries.Delete(list)
}
