// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package datapath makes the kernel agree with a program. A pass has three parts: it observes the wiring of
// the pods, other programs' rules at our hooks and denied connections (observe.go: reads only); package
// decide computes the changes; commit.go makes them in a fixed order. At the start it verifies that a
// packet which must be dropped is dropped.
//
// It is one of the two places that decide what fails closed: after a failed commit the kernel keeps its
// state, and nothing is ever flushed on exit.
package datapath

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Options are the operator's choices.
type Options struct {
	decide.Options
	// Uplinks are patterns of interfaces that never lead to pods.
	Uplinks []string
	// Sysctls is where kernel settings are read and written.
	Sysctls sysctl.Dir
	// Tally counts the transactions together with those of the agent's other parts, which are no drift. May
	// be nil.
	Tally *nft.Tally
	// Announced reports whether the container runtime announced a pod of this node with the address, and
	// returns the interfaces of the node that lead to that pod. May be nil; the goroutine of Apply calls
	// it.
	Announced func(netip.Addr) (ifaces []string, ok bool)
	// ExtraHardware returns the hardware addresses that a pod (namespace/name) may have in addition to that
	// of its interface. May be nil; the goroutine of Apply calls it.
	ExtraHardware func(pod string) []inet.Hardware
}

// Report describes what an Apply did and found.
type Report struct {
	decide.Findings
	Full     bool // the table was read from the kernel first
	Changes  int  // operations sent
	Elements int  // elements in them
	// Drift is the number of differences that other programs made.
	Drift int
	Table *nft.Table // what the kernel now holds
	// Held are addresses of pods that are closed for now, because connections older than the pod may exist.
	// Changed receives when they need not be held any longer.
	Held []netip.Addr
	Cuts Cuts
	// Open is true if the node was opened on purpose: none of our tables is in the kernel, and the report
	// holds only the problem that reports it.
	Open bool
}

// take copies the findings of a decision.
func (r *Report) take(out decide.Decision) {
	r.Findings, r.Held = out.Findings, out.Held.Addrs
}

func (r *Report) add(problems ...decide.Problem) { r.Problems = append(r.Problems, problems...) }

// Datapath owns podwall's table in one network namespace. Apply, Cut, Verify,
// Cleanup and Close are called by one goroutine; Watch runs in another.
type Datapath struct {
	options Options
	log     *slog.Logger
	conn    *nft.Conn
	stale   bool // something failed, so the connection may be out of step
	links   *links.Links
	events
	decider *decide.Decider
	now     func() time.Time // the clock of decisions; tests advance it

	table    table
	bridge   bridgeTable
	survey   *nft.Survey
	surveyed nft.Mark // before the survey
	settings settings
	proof    proof
	cuts     cuts
	opening  opening

	shown     shown
	left      omitted // objects that the kernel refuses
	refusals  int     // commits refused in a row
	untracked string  // why IPVS packets bypass our chains, "" if they do not
	legacy    legacy
}

// Open connects to the kernel and checks that it has the required features. The network namespace is that
// of the calling thread.
func Open(o Options, log *slog.Logger) (*Datapath, error) {
	if err := preflight(); err != nil {
		return nil, err
	}
	conn, err := ruleset.Open(0)
	if err != nil {
		return nil, unsupported(err)
	}
	if o.Tally != nil {
		conn.CountIn(o.Tally)
	}
	if _, err := conn.Exists(); err != nil {
		return nil, errors.Join(unsupported(err), conn.Close())
	}
	d := &Datapath{
		options: o, log: log, conn: conn, links: links.New(links.Options{Uplinks: o.Uplinks}),
		decider: decide.New(o.Options), now: time.Now,
		settings: settings{dir: o.Sysctls, log: log, was: map[string]string{}},
	}
	d.events.init(conn.Ports())
	d.cuts.open(o, log, d.awake, d.denied.Set)
	return d, nil
}

// SetNodeAddresses sets the addresses of the Node object. Any goroutine may call it.
func (d *Datapath) SetNodeAddresses(list []netip.Addr) {
	d.links.SetNodeAddresses(list)
	d.note(nft.Notice{Hooks: true})
}

// LocalAddresses returns the addresses of this network namespace, sorted. Any goroutine may call it.
func (d *Datapath) LocalAddresses() ([]netip.Addr, error) {
	own, _, err := d.links.Addresses()
	return own, err
}

// Close ends the connection to the kernel. The rules stay.
func (d *Datapath) Close() error { return errors.Join(d.conn.Close(), d.cuts.close()) }

// Apply makes the kernel agree with the program. Repeated with the same program it sends nothing. After an
// error the kernel is unchanged, or holds part of a very large change; the next Apply reads it back.
func (d *Datapath) Apply(ctx context.Context, p *program.Program) (Report, error) {
	report, err := d.apply(ctx, p)
	if err == nil {
		d.before.Store(nil) // the kernel may give the port to another program
	}
	return report, d.trust(err)
}

// trust notes from the error whether the connection is still usable, and returns the error.
func (d *Datapath) trust(err error) error {
	d.stale = d.stale || err != nil
	return err
}

// renew reconnects if something failed since the last call.
func (d *Datapath) renew() error {
	if !d.stale {
		return nil
	}
	if err := d.conn.Renew(); err != nil {
		return err
	}
	ports := d.conn.Ports()
	d.before.Store(d.ports.Load())
	d.ports.Store(&ports)
	d.stale = false
	return nil
}

func (d *Datapath) apply(ctx context.Context, p *program.Program) (Report, error) {
	report := Report{}
	if err := d.renew(); err != nil {
		return report, err // the pending notifications stay queued
	}
	seen, err := d.takeNotices()
	if seen.Table {
		d.table.known, d.table.onlyRefused = false, false // first, so that it outlives a failure below
		d.bridge.known = false
		d.opening.asked = false
	}
	if open, failed := d.opened(); failed != nil {
		return report, errors.Join(err, failed)
	} else if open {
		report.Open = true
		report.add(d.openProblem())
		return report, err
	}
	if seen.Hooks || !d.table.known || d.survey == nil {
		if err := d.surveyOthers(); err != nil {
			d.survey = nil
			return report, err
		}
	}
	if err != nil {
		return report, err
	}
	if err := d.enforce(ctx, p, &report); err != nil {
		return report, d.explainFirst(err)
	}
	err = d.prove(ctx, p, &report)
	d.ipvs(&report)
	report.add(d.proof.failed...)
	return report, err
}

// Verify makes the next Apply compare the whole table with the kernel, if anything in the kernel's nftables
// changed since the last known state, or if a required setting was reverted.
func (d *Datapath) Verify() error {
	if err := d.renew(); err != nil {
		return err
	}
	others, _, err := d.conn.OthersSince(d.table.mark)
	if err != nil {
		return d.trust(err)
	}
	retry := d.retryLeft() // regardless of the conditions below
	if retry || others || d.settings.vlanLost() || !d.proof.tested {
		d.note(nft.Notice{Table: true, Hooks: true})
	} else if d.decider.Missing() || d.settings.blind || d.ipvsMoved() || d.legacy.look() {
		d.note(nft.Notice{Hooks: true}) // check again whether they are there
	}
	return d.trust(d.sweep(time.Now()))
}

// pass makes the kernel agree with the program, without the objects left out: it observes, decides and
// commits.
func (d *Datapath) pass(ctx context.Context, all *program.Program, report *Report) error {
	if !d.table.known {
		if err := d.readTable(ctx, report); err != nil {
			return err
		}
	}
	if err := d.trust(d.readBridge()); err != nil {
		if !d.bridge.bound {
			return err // otherwise the current bindings would count
		}
		d.log.Warn("reading the table of bridge ports failed", "err", err)
	}
	node, err := d.observeAddresses()
	if err != nil {
		return err
	}
	w, err := d.observeWiring(ctx, all, node)
	if err != nil {
		return err
	}
	c := d.observeConnections(node, report)
	return d.commit(ctx, d.decider.Decide(all, d.left.of(all), w, c), report)
}

// Counters returns the packets dropped so far, by counter name.
func (d *Datapath) Counters() (map[string]uint64, error) {
	if err := d.renew(); err != nil {
		return nil, err
	}
	counters, err := ruleset.Counters(d.conn)
	return counters, d.trust(err)
}
