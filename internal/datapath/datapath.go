// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package datapath makes the kernel agree with a program. It owns the write
// side: it asks how the pods are wired (links) and what other programs do at
// our hooks (nft.Survey), has the table rendered, commits the difference, reads
// back after failures and when somebody else changed something, and proves at
// the start that a packet which must be dropped is dropped.
//
// It is one of the two places that decide what fails closed: after a failed
// commit the kernel keeps what it has, and nothing is ever flushed on exit.
package datapath

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/kuberouter"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Guard says when the guard against invalid and untracked packets is on.
type Guard uint8

// The settings of the guard. Auto is on unless somebody else's rules drop
// invalid packets.
const (
	GuardAuto Guard = iota
	GuardOn
	GuardOff
)

// Options are the operator's choices.
type Options struct {
	// FilterHook judges packets in filter chains instead of nat chains.
	FilterHook bool
	Guard      Guard
	// OpenUnknown lets pass what is to or from an address that no known pod has.
	OpenUnknown bool
	// Uplinks are patterns of interfaces that never lead to pods.
	Uplinks []string
	// KeepConnections lets connections that exist go on when a change denies them.
	KeepConnections bool
	// Sysctls is where settings of the kernel are read and written.
	Sysctls sysctl.Dir
	// Announced reports whether the container runtime said that a pod of this node
	// has the address. May be nil; it is called by the goroutine of Apply.
	Announced func(netip.Addr) bool
}

// Problem is a state of the node in which policies are not fully true.
type Problem struct {
	Subject, Text, Cure string
	Blocking            bool
}

// Report says what an Apply did and found.
type Report struct {
	Full     bool // the table was read from the kernel first
	Changes  int  // operations sent
	Elements int  // elements in them
	// Drift is the number of differences that somebody else had made.
	Drift    int
	Table    *nft.Table // what the kernel now holds
	Filter   bool       // judged in filter chains
	Guard    bool
	GuardWhy string
	Problems []Problem
	// Unsure counts the addresses of pods for which something is missing, by what: see
	// Unsures. They are counted at once; problems name them after a while.
	Unsure map[string]int
	// Strangers are interfaces that are closed and behind which no pod is known,
	// sorted. They are here at once; a problem names them after a while.
	Strangers []string
	// Held are addresses of pods that are closed for now, since connections from
	// before the pod may exist. Changed receives when they need not be any longer.
	Held []netip.Addr
	// Elsewhere are addresses of pods that are closed, since routes lead elsewhere.
	Elsewhere []netip.Addr
	Cuts      Cuts
	// Open is true of a node that was opened on purpose: nothing of ours is in the
	// kernel, and the rest of the report is empty but for the problem that says so.
	Open bool
}

// Datapath owns podwall's table in one network namespace. Apply, Cleanup and
// Close are called by one goroutine; Watch runs in another.
type Datapath struct {
	options Options
	log     *slog.Logger
	conn    *nft.Conn
	links   *links.Links
	events

	renderer    ruleset.Renderer
	actual      *nft.Table // what the kernel holds, nil for no table
	known       bool       // actual can be trusted
	onlyRefused bool       // it cannot, for no other reason than a commit of ours that was refused
	recalled    bool       // what an earlier process left in the table is taken over
	wrote       *nft.Table // what this process committed last: another difference is drift
	drift       int        // differences that others made, found by passes that failed since
	generation  uint32     // of the kernel's nftables, up to which actual is known
	// transactions of ours, up to the generation
	transactions uint32
	survey       *nft.Survey
	surveyed     uint32               // the generation before it
	tested       bool                 // the self-test ran on the present kind of chain
	lastTest     time.Time            // when it was tried
	failed       []Problem            // what it found
	forced       bool                 // filter chains, because nat chains do not work here
	restore      map[string]entry     // settings found on bridges, by interface
	bridged      bool                 // a bridge carries a pod
	blind        bool                 // and does not show all of its packets
	unreached    missing              // no route
	unbound      missing              // no bridge port
	bypassed     missing              // not behind an interface of the IP layer
	misled       missing              // routes lead elsewhere
	trusted      trusted              // and did not before
	strangers    map[string]time.Time // interfaces behind which no pod is known, since when
	unclear      missing              // a bridge's port has it, and something speaks against it
	belief       belief
	left         omitted // refused by the kernel
	refusals     int     // commits in a row
	small        map[nft.TableID]smallTable

	untracked string // what hides packets of IPVS from our chains, "" for nothing
	cuts      cuts

	open, askedOpen bool // on purpose; whether that is known
	whyOpen         string

	stale bool // something failed, so the connection may be out of step
}

// Open connects to the kernel and checks that it can do what is needed. The
// network namespace is that of the calling thread.
func Open(o Options, log *slog.Logger) (*Datapath, error) {
	if err := preflight(); err != nil {
		return nil, err
	}
	conn, err := ruleset.Open(0)
	if err != nil {
		return nil, unsupported(err)
	}
	if _, err := conn.Exists(); err != nil {
		return nil, errors.Join(unsupported(err), conn.Close())
	}
	d := &Datapath{
		options: o, log: log, conn: conn, links: links.New(links.Options{Uplinks: o.Uplinks}),
		restore: map[string]entry{}, small: map[nft.TableID]smallTable{},
		trusted: trusted{}, strangers: map[string]time.Time{},
		unreached: missing{}, unbound: missing{}, bypassed: missing{}, misled: missing{}, unclear: missing{},
	}
	d.events.init(conn.PortID())
	d.cuts.open(o, log, d.awake)
	return d, nil
}

// SetNodeAddresses says which addresses the Node object has. It may be called
// by any goroutine.
func (d *Datapath) SetNodeAddresses(list []netip.Addr) {
	d.links.SetNodeAddresses(list)
	d.note(nft.Notice{Hooks: true})
}

// Close ends the connection to the kernel. The rules stay.
func (d *Datapath) Close() error { return errors.Join(d.conn.Close(), d.cuts.close()) }

// Apply makes the kernel agree with the program. The same program twice sends
// nothing. After an error the kernel holds what it held, or part of a very
// large change; the next Apply reads it back.
func (d *Datapath) Apply(ctx context.Context, p *program.Program) (Report, error) {
	report, err := d.apply(ctx, p)
	if err == nil {
		d.before.Store(0) // the kernel may give the port to another program
	}
	return report, d.trust(err)
}

// trust notes whether the connection can be used after an outcome, and returns
// the error.
func (d *Datapath) trust(err error) error {
	d.stale = d.stale || err != nil
	return err
}

// renew connects anew if something failed since the last time.
func (d *Datapath) renew() error {
	if !d.stale {
		return nil
	}
	if err := d.conn.Renew(); err != nil {
		return err
	}
	d.before.Store(d.port.Load())
	d.port.Store(d.conn.PortID())
	d.stale = false
	return nil
}

func (d *Datapath) apply(ctx context.Context, p *program.Program) (Report, error) {
	report := Report{}
	if err := d.renew(); err != nil {
		return report, err // what happened in the kernel is still to be taken
	}
	seen, err := d.seen()
	if seen.Table {
		d.known, d.onlyRefused = false, false // first, so that it outlives a failure below
		clear(d.small)
		d.askedOpen = false
	}
	if open, failed := d.opened(&report); failed != nil {
		return report, errors.Join(err, failed)
	} else if open {
		report.Open, report.Problems = true, []Problem{d.openProblem()}
		return report, err
	}
	if seen.Hooks || !d.known || d.survey == nil {
		if err := d.look(); err != nil {
			d.survey = nil
			return report, err
		}
	}
	if err != nil {
		return report, err
	}
	if err := d.makeOthers(ctx, p, &report); err != nil {
		return report, d.first(err)
	}
	err = d.prove(ctx, p, &report)
	d.tags(&report)
	d.ipvs(&report)
	report.Problems = append(report.Problems, d.failed...)
	return report, err
}

// seen returns what happened in the kernel. Of lost notifications it does not
// matter what they said, if all transactions were ours.
func (d *Datapath) seen() (nft.Notice, error) {
	n := d.take()
	if !n.Lost {
		return n, nil
	}
	g, err := d.conn.Generation()
	if err != nil || g != d.generation || !d.known {
		n.Table, n.Hooks = true, true
	}
	return n, err
}

// Verify makes the next Apply compare the whole table with the kernel, if
// anything in the kernel's nftables changed since we last knew it, or if a
// setting that we need was taken back.
func (d *Datapath) Verify() error {
	if err := d.renew(); err != nil {
		return err
	}
	g, err := d.conn.Generation()
	if err != nil {
		return d.trust(err)
	}
	retry := d.retryLeft() // whatever else there is to do
	if retry || g != d.generation || d.vlanLost() || !d.tested {
		d.note(nft.Notice{Table: true, Hooks: true})
	} else if len(d.unreached)+len(d.unbound)+len(d.bypassed)+len(d.misled)+len(d.unclear) > 0 || d.blind || d.ipvsMoved() {
		d.note(nft.Notice{Hooks: true}) // look again whether they are there
	}
	return d.trust(d.sweep(time.Now()))
}

// look asks what other programs do at our hooks. It comes before a read, so that
// no generation is taken as known of which nobody has seen the others' rules.
func (d *Datapath) look() error {
	g, err := d.conn.Generation()
	if err != nil {
		return err
	}
	s, err := d.conn.Survey(ruleset.PriorityNAT, kuberouter.IsFirewallChain)
	if err != nil {
		return err
	}
	if d.survey == nil || len(s.Before) != len(d.survey.Before) {
		d.tested = false
	}
	d.survey, d.surveyed = &s, g
	return nil
}

// wanted is what the kernel shall have of a program for now.
type wanted struct {
	program *program.Program
	held    held
	node    program.Node
	bridges []links.Path // that have to show their packets
}

// want says what the kernel shall have, and changes nothing there. Paths and interfaces are those of all
// pods, also of those that are left out, not believed, or held: these stay closed.
func (d *Datapath) want(ctx context.Context, all *program.Program, out omitted, report *Report) (wanted, error) {
	paths, err := d.links.Find(ctx, addressesOf(all.Pods))
	if err != nil {
		return wanted{}, err // without them the closing rules would be taken away
	}
	p := d.believe(all, paths, report)
	now := time.Now()
	report.Problems = append(report.Problems, d.lookForPods(all, paths, d.links.Unclear(), now)...)
	report.Problems = append(report.Problems, d.lookForStrangers(report, now)...)
	report.Unsure = d.unsure()
	d.lookAgain(d.nextLook(now))
	p, h := d.hold(out.of(p), paths)
	report.Held = h.addrs
	return wanted{p, h, d.node(p, all, paths, report), d.podBridges(all, paths)}, nil
}

func addressesOf(pods []program.Pod) []links.Pod {
	list := make([]links.Pod, len(pods))
	for i, p := range pods {
		list[i] = links.Pod{Addr: p.Addr, Name: p.Name, ID: p.ID}
	}
	return list
}

// make renders, compares and commits, without what is left out.
func (d *Datapath) make(ctx context.Context, all *program.Program, report *Report) error {
	if !d.known {
		if err := d.read(ctx, report); err != nil {
			return err
		}
	}
	w, err := d.want(ctx, all, d.left, report)
	if err != nil {
		return err
	}
	d.enforceBridges(w.bridges, report)
	w.node.Restore = d.entries()
	p, node := w.program, w.node
	todo, err := d.plan(p, node, w.held, report)
	if err != nil {
		return err
	}
	d.cuts.endReused(todo) // before anything speaks of the new owners
	node.Cut = todo.cutting
	d.bindPorts(node, report) // before anybody at the ports is let speak
	desired := d.renderer.Render(p, node)
	ops := nft.Diff(d.actual, desired)
	if report.Full && d.wrote != nil && len(ops) > 0 {
		// What is desired may have changed too, and that is nobody's fault.
		d.drift += len(nft.Diff(d.actual, d.wrote))
	}
	ops = ruleset.JoinOps(ops, d.cuts.ops(todo, ops))
	report.Changes = len(ops)
	for _, op := range ops {
		report.Elements += op.Elements()
	}
	if err := d.write(ctx, desired, ops); err != nil {
		d.cuts.audit.giveBack(todo.cuts)
		if !d.onlyRefused {
			d.cuts.arrivals.doubt() // nobody knows what the kernel holds
		}
		return err
	}
	report.Table = desired
	report.Drift, d.drift = d.drift, 0
	return d.finish(p, todo, report)
}

// write commits changes that lead to a table; nil stands for all that differs.
func (d *Datapath) write(ctx context.Context, desired *nft.Table, ops []nft.Op) error {
	if ops == nil {
		ops = nft.Diff(d.actual, desired)
	}
	if err := d.commit(ctx, ops); err != nil {
		d.known, d.wrote, d.onlyRefused = false, nil, refused(err) && d.actual != nil // else there are no rules
		return err
	}
	d.actual, d.wrote = desired, desired
	return nil
}

func (d *Datapath) read(ctx context.Context, report *Report) error {
	// Asked first: what changes while we look and read counts as not known.
	g := d.surveyed
	if d.survey == nil {
		var err error
		if g, err = d.conn.Generation(); err != nil {
			return err
		}
	}
	actual, err := d.conn.ReadUntil(ctx)
	if err != nil {
		return err
	}
	report.Full = true
	if !d.onlyRefused {
		d.cuts.arrivals.doubt() // the rules may have been away
	}
	d.onlyRefused = false
	if !d.recalled { // later, what is not ours there is not believed
		d.remember(actual)
		d.recalled = true
	}
	d.actual, d.known, d.generation, d.transactions = actual, true, g, d.conn.Transactions()
	return nil
}

func (d *Datapath) commit(ctx context.Context, ops []nft.Op) error {
	if len(ops) == 0 {
		return nil
	}
	if err := d.conn.CommitUntil(ctx, ops); err != nil {
		return commitError{err}
	}
	return d.committed(nil)
}

// committed ends a commit. The generation is taken as known only if the
// transactions since then were all ours: otherwise Verify has to look.
func (d *Datapath) committed(err error) error {
	if err != nil {
		return err
	}
	g, err := d.conn.Generation()
	if err != nil {
		return err
	}
	if taken := d.conn.Transactions(); g == d.generation+taken-d.transactions {
		d.generation, d.transactions = g, taken
	}
	return nil
}

// Counters returns the packets dropped so far, by counter name.
func (d *Datapath) Counters() (map[string]uint64, error) {
	if err := d.renew(); err != nil {
		return nil, err
	}
	counters, err := ruleset.Counters(d.conn)
	return counters, d.trust(err)
}
