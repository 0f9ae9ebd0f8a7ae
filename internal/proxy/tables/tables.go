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
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/pace"
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
	families [len(inet.Families)]*table
	shown    [len(inet.Families)]atomic.Pointer[nft.Table] // of the last commits, for other goroutines
	entries  connections
	scans    scans         // of the connection table
	wait     time.Duration // how long they rest still, as of the beginning of an Apply
	scanning time.Time     // when the first one of an Apply began
	failed   bool          // reading or deleting entries failed, so their connection may be out of step
	events
	mark nft.Mark // the state of the kernel's nftables up to which the tables are known
}

// scans says how long the connection table is not read again after a scan, a *pace.Rest but in tests.
type scans interface {
	AfterScan(start time.Time)
	Left() time.Duration
}

// connections is the connection table, a *conntrack.Conn but in tests of its failures.
type connections interface {
	DumpProtocol(f inet.Family, p inet.Protocol, take func(*inet.Connection)) error
	Delete(list []inet.Connection) (deleted int, err error)
	Close() error
}

// Desired is what the kernel shall hold.
type Desired struct {
	Model *service.Model
	// Own reports whether an address is one of the node's.
	Own func(netip.Addr) bool
	// Serving reports whether a backend may keep the clients that it has, although no new ones go to it. Nil
	// means that none may.
	Serving stale.Serving
	// Tables returns what the tables do of the model's program, where another part of the kernel does the
	// rest. Nil means that they do all of it.
	Tables func(inet.Family) *program.Program
	// Entered is called when the table of a family is in force, before what went is ended. May be nil.
	Entered func(inet.Family) error
}

// tables returns the program of the table of a family.
func (d Desired) tables(f inet.Family) *program.Program {
	if d.Tables == nil {
		return d.Model.Program(f)
	}
	return d.Tables(f)
}

// Report says what an Apply found and did.
type Report struct {
	Full      bool // a table was read from the kernel first
	Changes   int  // operations sent
	Elements  int  // elements in them
	Drift     int  // differences that other programs made
	Forgotten int  // clients with affinity whose backend went
	Ended     int  // entries of the connection table whose backend went
	// Unsettled is why clients or connections of backends that went are left; the tables are in force. The
	// next Apply tries again.
	Unsettled error
	// Later is when the next Apply shall be at the latest, from now on, to end connections whose backend went: the
	// connection table was read just now. 0 if none wait.
	Later time.Duration
	// Scan is how long the connection table was read and entries were deleted. That has a rest of its own.
	Scan time.Duration
}

// And returns the report of two Applys, the first of which is r.
func (r Report) And(next Report) Report {
	next.Full = next.Full || r.Full
	next.Changes, next.Elements, next.Drift = next.Changes+r.Changes, next.Elements+r.Elements, next.Drift+r.Drift
	next.Forgotten, next.Ended = next.Forgotten+r.Forgotten, next.Ended+r.Ended
	next.Scan += r.Scan
	return next // what the first left unsettled, the next has tried again
}

// Open connects to the kernel, in the network namespace of the calling thread. Transactions that count in the
// tally are no drift.
func Open(settings ruleset.Settings, tally *nft.Tally, log *slog.Logger) (*Tables, error) {
	t := &Tables{settings: settings, log: log, scans: &pace.Rest{}}
	t.events.init()
	for i, f := range inet.Families {
		conn, err := nft.Open(0, ruleset.Table(f))
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		conn.CountIn(tally)
		t.families[i] = &table{conn: conn}
		t.mine(i, conn.Ports())
	}
	entries, err := conntrack.Open()
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.entries = entries
	return t, nil
}

// Close ends the connections to the kernel. The tables stay.
func (t *Tables) Close() error {
	var failed []error
	for _, f := range t.families {
		if f != nil {
			failed = append(failed, f.conn.Close())
		}
	}
	if t.entries != nil {
		failed = append(failed, t.entries.Close())
	}
	return errors.Join(failed...)
}

// Apply makes the kernel agree. Repeated with the same model it sends nothing. A failure in one family does
// not keep the other from its change. After an error the kernel has what it had, or a part of a large
// change; the next Apply reads it back.
func (t *Tables) Apply(ctx context.Context, want Desired) (Report, error) {
	var report Report
	if err := t.renew(); err != nil {
		return report, err
	}
	if err := t.hear(); err != nil {
		return report, err
	}
	t.wait = t.scans.Left() // once for both families: a Service with both does not wait for itself
	t.scanning = time.Time{}
	defer func() {
		if !t.scanning.IsZero() {
			t.scans.AfterScan(t.scanning)
		}
	}()
	var failed []error
	for i, f := range inet.Families {
		err := t.apply(ctx, t.families[i], want.Model.Program(f), want, &report)
		if wrote := t.families[i].wrote; wrote != nil {
			t.shown[i].Store(wrote)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", ruleset.Table(f), err))
		}
	}
	return report, errors.Join(failed...)
}

// Verify makes the next Apply compare both tables with the kernel, if anything in the kernel's nftables
// changed that was not ours.
func (t *Tables) Verify() error {
	if err := t.renew(); err != nil {
		return err
	}
	others, _, err := t.othersSince()
	if err == nil && others {
		t.note(nft.Notice{Table: true})
	}
	return err
}

// Resettle makes the next Apply look at all connections again, after a change that no program shows.
func (t *Tables) Resettle() {
	for _, f := range t.families {
		f.again = true
	}
}

// Ruleset writes the tables that this process has loaded, in the syntax of nft, each after comments that say
// what differs in the kernel. Any goroutine may call it.
func (t *Tables) Ruleset(out io.Writer) error {
	var failed []error
	for i, f := range inet.Families {
		failed = append(failed, nft.Show(out, ruleset.Table(f), t.shown[i].Load))
	}
	return errors.Join(failed...)
}

// Counters returns the packets that the tables rejected or dropped, by counter name, of both families.
func (t *Tables) Counters() (map[string]uint64, error) {
	if err := t.renew(); err != nil {
		return nil, err
	}
	sum := map[string]uint64{}
	for _, f := range t.families {
		list, err := f.conn.Counters()
		if err != nil {
			return nil, f.trust(err)
		}
		for name, n := range list {
			sum[name] += n
		}
	}
	return sum, nil
}

// renew reconnects where something failed since the last call. Each family has a connection of its own: one
// on which a commit failed may be out of step, and would make the other family's fail, too.
func (t *Tables) renew() error {
	for i, f := range t.families {
		if !f.broken {
			continue
		}
		if err := f.conn.Renew(); err != nil {
			return err
		}
		t.mine(i, f.conn.Ports())
		f.broken = false
	}
	if !t.failed {
		return nil
	}
	entries, err := conntrack.Open()
	if err != nil {
		return err
	}
	old := t.entries
	t.entries, t.failed = entries, false
	return old.Close()
}

// othersSince reports whether others committed since the tables were known, and returns the present state.
func (t *Tables) othersSince() (bool, nft.Mark, error) {
	f := t.families[0]
	others, now, err := f.conn.OthersSince(t.mark)
	return others, now, f.trust(err)
}

// hear takes the pending notices. Lost ones can be ignored if the generation shows that all transactions
// were ours. If a table is not known, both are read: what is read counts up to the mark before it.
func (t *Tables) hear() error {
	n := t.take()
	known := !n.Table && !slices.ContainsFunc(t.families[:], func(f *table) bool { return !f.known })
	if known && !n.Lost {
		return nil
	}
	others, now, err := t.othersSince()
	if known && !others {
		return nil
	}
	for _, f := range t.families {
		f.known = false
	}
	t.mark = now
	return err
}

// table is what is known of the table of one family.
type table struct {
	conn     *nft.Conn
	broken   bool // something failed, so the connection may be out of step
	renderer ruleset.Renderer
	actual   *nft.Table // what the kernel holds, nil for no table
	known    bool       // actual can be trusted
	wrote    *nft.Table // the last commit of this process: other differences are drift
	// noted is the program whose difference to the one before it is in waiting; nil if there was none.
	noted *program.Program
	again bool       // all connections must be looked at: they may have begun under other rules, or under none
	left  stale.Left // backends that were left their clients
	// waiting has what the next scan must look for; nil if nothing.
	waiting *stale.Judge
	due     time.Time // when the scan must be at the latest; zero if none was put off
	// sticky is the program of the table by which clients were forgotten last; nil if that may have failed since.
	sticky *program.Program
}

// trust notes from the error whether the connection is still usable, and returns the error.
func (f *table) trust(err error) error {
	f.broken = f.broken || err != nil
	return err
}

// apply brings one table to its program, then ends what the change left behind.
func (t *Tables) apply(ctx context.Context, f *table, p *program.Program, want Desired, report *Report) error {
	if err := t.read(ctx, f, report); err != nil {
		return f.trust(err)
	}
	tabled := want.tables(p.Family)
	desired := f.renderer.Render(tabled, t.settings)
	ops := nft.Diff(f.actual, desired)
	// A pass that fails from here on may have been in force, and clients may have begun under it.
	f.note(p, want.Serving, t.settings.IPVS)
	forgotten := f.sticky
	if len(ops) > 0 {
		f.sticky = nil
	}
	if err := f.conn.CommitUntil(ctx, ops); err != nil {
		f.known, f.wrote = false, nil
		return f.trust(err)
	}
	report.Changes += len(ops)
	for _, op := range ops {
		report.Elements += op.Elements()
	}
	f.actual, f.wrote = desired, desired
	if err := t.committed(len(ops)); err != nil {
		return err
	}
	if want.Entered != nil {
		if err := want.Entered(p.Family); err != nil {
			return err
		}
	}
	if err := t.settle(f, forgotten, tabled, want, report); err != nil {
		report.Unsettled = errors.Join(report.Unsettled, fmt.Errorf("%s: %w", ruleset.Table(p.Family), err))
	}
	return nil
}

// read reads a table from the kernel, unless it is known.
func (t *Tables) read(ctx context.Context, f *table, report *Report) error {
	if f.known {
		return nil
	}
	actual, err := f.conn.ReadUntil(ctx)
	if err != nil {
		return err
	}
	report.Full = true
	if f.wrote != nil {
		drift := len(nft.Diff(actual, f.wrote))
		report.Drift += drift
		if drift > 0 {
			f.again, f.sticky = true, nil // connections began without our rules, or with other ones
		}
	}
	f.actual, f.known = actual, true
	return nil
}

// committed counts the state after a commit as known, if all transactions since the last one were ours:
// otherwise Verify compares.
func (t *Tables) committed(changes int) error {
	if changes == 0 {
		return nil
	}
	others, now, err := t.othersSince()
	if err == nil && !others {
		t.mark = now
	}
	return err
}

// note adds what a change to a program makes stale to what the next scan looks for. It runs before the change is in
// the kernel: for the first program of a process, the table is still what an earlier one left.
func (f *table) note(p *program.Program, serving stale.Serving, ipvs bool) {
	if f.noted == p && !f.again && len(f.left) == 0 {
		return
	}
	judge := stale.After(f.noted, p, serving, f.left)
	judge.IPVS = ipvs
	if f.noted == nil {
		judge.Earlier(ruleset.Fronts(f.actual))
	}
	if f.again {
		judge.LookAtAll()
	}
	judge.Add(f.waiting)
	f.noted, f.again, f.left, f.waiting = p, false, judge.Left(), judge
}

// putOff returns how long the scan may wait still: until the rest after the last one is over, and no longer if
// further ones begin meanwhile.
func (f *table) putOff(rest time.Duration) time.Duration {
	if rest == 0 || !f.waiting.MayWait() {
		return 0
	}
	now := time.Now()
	if f.due.IsZero() {
		f.due = now.Add(rest)
	}
	return max(0, f.due.Sub(now))
}

// settle forgets the clients of backends that went, and ends connections that would go on to them. It runs
// after the change is in the kernel: until then clients are sent there. Clients were forgotten last by the program
// forgotten, nil if that is not known.
func (t *Tables) settle(f *table, forgotten, tabled *program.Program, want Desired, report *Report) error {
	if forgotten != tabled || f.waiting != nil {
		n, err := ruleset.Forget(f.conn, tabled, ruleset.StickyChanges(forgotten, tabled), t.settings, want.Own)
		report.Forgotten += n
		if err != nil {
			f.sticky = nil
			return f.trust(err)
		}
	}
	f.sticky = tabled
	if f.waiting == nil {
		return nil
	}
	if wait := f.putOff(t.wait); wait > 0 {
		report.Later = max(report.Later, wait)
		return nil
	}
	ended, err := t.end(f.waiting, tabled.Family, report)
	report.Ended += ended
	if err != nil {
		t.failed = true
		return err
	}
	f.left, f.waiting, f.due = f.waiting.Left(), nil, time.Time{}
	return nil
}

// end deletes the entries of the connection table that a change made stale.
func (t *Tables) end(judge *stale.Judge, f inet.Family, report *Report) (ended int, err error) {
	var list []inet.Connection
	needed := judge.Needed()
	if len(needed) > 0 {
		start := time.Now()
		if t.scanning.IsZero() {
			t.scanning = start
		}
		defer func() { report.Scan += time.Since(start) }()
	}
	for _, p := range needed {
		err = t.entries.DumpProtocol(f, p, func(e *inet.Connection) {
			if judge.Stale(*e) {
				list = append(list, *e)
			}
		})
		if err != nil {
			return 0, err
		}
	}
	if len(list) == 0 {
		return 0, nil
	}
	return t.entries.Delete(list)
}
