// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// table is the known state of the table that filters packets.
type table struct {
	renderer    ruleset.Renderer
	actual      *nft.Table // what the kernel holds, nil for no table
	known       bool       // actual can be trusted
	onlyRefused bool       // actual cannot be trusted, only because a commit of ours was refused
	recalled    bool       // the state that an earlier process left in the table is taken over
	wrote       *nft.Table // the last commit of this process: other differences are drift
	drift       int        // differences made by others, found by passes that failed since
	mark        nft.Mark   // the state of the kernel's nftables up to which actual is known

	asRead  bool              // actual was read, not written
	unheard bool              // no committed decision has processed refused
	refused []program.Refused // refused packets as read
	decided *nft.Table        // the table of the last committed decision
}

// readTable reads the table from the kernel.
func (d *Datapath) readTable(ctx context.Context, report *Report) error {
	// Read first: changes during the survey and the read count as unknown.
	mark := d.surveyed
	if d.survey == nil {
		var err error
		if mark, err = d.conn.Mark(); err != nil {
			return err
		}
	}
	actual, err := d.conn.ReadUntil(ctx)
	if err != nil {
		return err
	}
	report.Full = true
	t := &d.table
	if !t.onlyRefused {
		d.cuts.arrivals.doubt() // the rules may have been away
	}
	t.onlyRefused = false
	if !t.recalled { // later the table's content is not trusted for this
		d.recall(actual)
		t.recalled = true
	}
	t.actual, t.known, t.mark = actual, true, mark
	t.asRead, t.unheard, t.refused = true, actual != nil, nil
	if actual != nil {
		t.refused = ruleset.Refusals(actual)
	}
	return nil
}

// recall takes over the state that an earlier process kept in the table.
func (d *Datapath) recall(t *nft.Table) {
	if t == nil {
		return
	}
	for _, s := range ruleset.Restore(t) {
		d.settings.was[s.Name] = withIndex(s.Name, s.Text)
	}
	d.links.Remember(ruleset.CarriedLinks(t))
	if d.options.FilterHook {
		delete(d.settings.was, forcedEntry) // the operator asks for it now
	}
	_, d.decider.Forced = d.settings.was[forcedEntry]
}

// render returns the table of a program and its differences from the kernel's.
func (t *table) render(p *program.Program, n program.Node) (desired *nft.Table, ops []nft.Op) {
	desired = t.renderer.Render(p, n)
	return desired, nft.Diff(t.actual, desired)
}

// write commits changes that lead to a table.
func (d *Datapath) write(ctx context.Context, desired *nft.Table, ops []nft.Op) error {
	t := &d.table
	if err := d.transact(ctx, ops); err != nil {
		t.known, t.wrote, t.onlyRefused = false, nil, refused(err) && t.actual != nil // else there are no rules
		return err
	}
	t.actual, t.wrote, t.asRead = desired, desired, false
	d.shown.judging.Store(desired)
	return nil
}

// decide notes that a decision is in force.
func (t *table) decide() { t.decided, t.unheard, t.refused = t.actual, false, nil }

func (d *Datapath) transact(ctx context.Context, ops []nft.Op) error {
	if len(ops) == 0 {
		return nil
	}
	if err := d.conn.CommitUntil(ctx, ops); err != nil {
		return commitError{err}
	}
	return d.committed(nil)
}

// committed ends a commit. The generation counts as known only if all transactions since the last one were
// ours: otherwise Verify has to compare.
func (d *Datapath) committed(err error) error {
	if err != nil {
		return err
	}
	others, now, err := d.conn.OthersSince(d.table.mark)
	if err == nil && !others {
		d.table.mark = now
	}
	return err
}
