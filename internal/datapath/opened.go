// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// In an emergency an operator opens the node: a separate table marks it as open (see ruleset.OpenName), and
// all other tables of ours are removed. The mark is in the kernel: it needs no API server, only root on the
// node can set it, a restarted agent keeps the node open, and a reboot closes the node.

// opening is the known state of that mark.
type opening struct {
	asked bool // the fields below are known
	open  bool
	why   string
}

// opened reports whether the node is open on purpose. While it is, our tables are removed and nothing is
// written.
func (d *Datapath) opened() (bool, error) {
	o := &d.opening
	if o.asked {
		return o.open, nil
	}
	why, open, err := ruleset.Opened(d.conn)
	if err != nil {
		return false, err
	}
	if open {
		if err := d.makeWay(); err != nil {
			return false, err
		}
	}
	if o.open && !open {
		d.log.Warn("the node is closed again")
	}
	*o = opening{asked: true, open: open, why: why}
	return open, nil
}

// makeWay removes our tables. A setting that cannot be restored does not keep the node closed.
func (d *Datapath) makeWay() error {
	failed, err := d.restoreSettings()
	if failed != nil {
		d.log.Warn("a setting could not be restored", "err", failed)
	}
	if err := errors.Join(err, d.deleteTables()); err != nil {
		return err
	}
	d.forgetKernel()
	return nil
}

// forgetKernel drops the known state of a deleted table: when the node is closed again, everything is read,
// written and tested as at the start, and all connections are judged.
func (d *Datapath) forgetKernel() {
	d.table = table{recalled: d.table.recalled}
	d.proof = proof{}
	d.decider.Forget()
	d.cuts.arrivals.disarm()
	clear(d.settings.was)
	d.bridge = bridgeTable{bound: d.bridge.bound}
	d.shown.judging.Store(nil)
	d.shown.bridge.Store(nil)
}

func (d *Datapath) openProblem() decide.Problem {
	return decide.Problem{Subject: "node open", Blocking: true,
		Text: "the node was opened on purpose, no policy is enforced here: " + d.opening.why,
		Cure: "when the emergency is over: podwall-agent --close-node, on this node"}
}

// openPatience is how long the agent may take to react.
const openPatience = 30 * time.Second

// stayGone is how long our tables must be absent before the node counts as open: an agent may be writing.
const stayGone = 500 * time.Millisecond

// OpenNode opens the node and returns when no rule of ours filters packets any more, with or without a
// running agent. why is shown in reports.
func OpenNode(ctx context.Context, why string, o Options, log *slog.Logger) error {
	d, err := Open(o, log)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := ruleset.MarkOpen(d.conn, why); err != nil {
		return err
	}
	failed, err := d.restoreSettings()
	if err := errors.Join(failed, err); err != nil {
		log.Warn("a setting could not be restored", "err", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	for since := time.Now(); time.Since(since) < stayGone; {
		exists, err := d.conn.Exists()
		if exists {
			since = time.Now()
		}
		if err := errors.Join(err, d.deleteTables()); err != nil {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("the node is marked open, but a process still writes podwall's table: %w", err)
		}
	}
	return nil
}

// ErrNoAgent means that the node was not closed, because no agent runs.
var ErrNoAgent = errors.New("no podwall-agent runs on this node, so closing it would enforce nothing")

// CloseNode reverts OpenNode and returns when the agent enforces again. Without an agent it changes
// nothing.
func CloseNode(ctx context.Context) error {
	conn, err := ruleset.Open(0)
	if err != nil {
		return unsupported(err)
	}
	defer func() { _ = conn.Close() }() // all has been written
	alive, err := agentLives(ctx)
	switch {
	case err != nil:
		return err
	case !alive:
		return ErrNoAgent
	}
	if err := ruleset.UnmarkOpen(conn); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	for {
		exists, err := conn.Exists()
		if err != nil || exists {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("the mark is removed, but the agent has not written its table yet; see its log: %w", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
