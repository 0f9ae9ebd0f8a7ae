// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Skeleton makes sure that a pod behind the named interfaces, with these addresses, is closed until an
// agent knows it. If there is no table of ours, it loads the table of a closed node without known pods. It
// makes the bridges among the interfaces pass their packets to the IP hooks. It does not interfere with a
// running agent that has its table. Then it deletes the connections of the addresses, which are older than
// the pod (see forget). The start gate calls it when the pod is wired but runs nothing yet, before it
// reports the pod to the agent. It is the one exception to invariant 2 (no kernel change before the first
// sync), and it opens nothing. An agent adopts its result like the table of an earlier process. Repeating
// it changes nothing, except that it ends the pod's connections.
func Skeleton(ctx context.Context, pod []string, addrs []netip.Addr, log *slog.Logger) error {
	open, err := isOpen()
	if err != nil || open {
		return err // open on purpose
	}
	kept, err := keptByAgent(ctx)
	if err == nil && !kept {
		err = load(ctx, pod, addrs, log)
	}
	if err != nil {
		return err // without rules, deleted entries would be added again
	}
	deleted, err := forgetHere(ctx, addrs)
	if deleted > 0 {
		log.Info("cut connections older than the pod", "count", deleted, "addresses", addrs)
	}
	return err
}

// isOpen reports whether an operator opened the node.
func isOpen() (open bool, err error) {
	conn, err := ruleset.Open(0)
	if err != nil {
		return false, unsupported(err)
	}
	_, open, err = ruleset.Opened(conn)
	return open, errors.Join(unsupported(err), conn.Close())
}

// keptByAgent reports whether our table exists and a running agent maintains it. The check takes the same
// time for a table of any size.
func keptByAgent(ctx context.Context) (bool, error) {
	conn, err := ruleset.Open(0)
	if err != nil {
		return false, unsupported(err)
	}
	exists, err := conn.Exists()
	if err := errors.Join(err, conn.Close()); err != nil {
		return false, unsupported(err)
	}
	if !exists {
		return false, nil
	}
	return agentLives(ctx)
}

// load loads the closed rules, or adds the pod to the table of a dead agent and removes the former pods of
// its addresses.
func load(ctx context.Context, pod []string, addrs []netip.Addr, log *slog.Logger) error {
	release, err := lockSkeleton(ctx)
	if err != nil {
		return err
	}
	defer release()
	d, err := Open(Options{}, log)
	if err != nil {
		return err
	}
	defer d.Close()
	var report Report
	if err := d.readTable(ctx, &report); err != nil {
		return err
	}
	if d.table.actual != nil {
		if alive, err := agentLives(ctx); alive || err != nil {
			return err // nil: an agent has started
		}
	}
	problems := d.showBridges(pod)
	if d.table.actual == nil {
		if err := d.surveyOthers(); err != nil {
			return err
		}
		err = d.pass(ctx, &program.Program{}, &report)
	} else {
		with := ruleset.WithMemory(d.table.actual, d.links.RememberedBridges(), d.settings.saved())
		err = errors.Join(d.transact(ctx, nft.Diff(d.table.actual, ruleset.WithoutPods(with, addrs))), d.disown(addrs))
	}
	report.add(problems...)
	return errors.Join(err, report.blocking())
}

// showBridges makes the bridges among the interfaces pass their packets to the IP hooks.
func (d *Datapath) showBridges(names []string) []decide.Problem {
	var bridges []inet.Path
	for _, name := range names {
		if index, ok := links.BridgeIndex(name); ok {
			d.links.Remember([]string{name})
			bridges = append(bridges, inet.Path{Index: index, Link: name, Bridge: true})
		}
	}
	return d.settings.show(bridges)
}

// blocking joins the problems that keep policies from being enforced.
func (r *Report) blocking() error {
	var errs []error
	for _, p := range slices.DeleteFunc(slices.Clone(r.Problems), func(p decide.Problem) bool { return !p.Blocking }) {
		errs = append(errs, fmt.Errorf("%s: %s (%s)", p.Subject, p.Text, p.Cure))
	}
	return errors.Join(errs...)
}
