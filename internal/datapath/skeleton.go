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

// Skeleton makes sure that a pod behind the named interfaces, with these
// addresses, is closed until an agent knows it. It loads the table of a closed
// node that knows no pod, if there is none of ours, and makes those of the
// interfaces that are bridges show their packets; an agent that lives beside its
// table is not disturbed. Then it deletes the connections of the addresses, which
// are from before the pod (see forget). The start gate calls it when the pod is
// wired and nothing runs in it yet, before it tells the agent; it is the one
// exception to invariant 2 (no kernel change before the first sync), and it opens
// nothing. An agent takes over what it did like what an earlier process left.
// Repeated it changes nothing, but ends the pod's connections.
func Skeleton(ctx context.Context, pod []string, addrs []netip.Addr, log *slog.Logger) error {
	open, err := isOpen()
	if err != nil || open {
		return err // on purpose
	}
	kept, err := keptByAgent(ctx)
	if err == nil && !kept {
		err = load(ctx, pod, addrs, log)
	}
	if err != nil {
		return err // what is deleted without rules comes again
	}
	deleted, err := forgetHere(ctx, addrs)
	if deleted > 0 {
		log.Info("connections from before the pod cut", "count", deleted, "addresses", addrs)
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

// keptByAgent reports whether our table is there and an agent looks after it. A
// table of any size is asked for in the same time.
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

// load loads the closed rules, or adds the pod to those that a dead agent left:
// who had its addresses before is forgotten.
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
			return err // nil: it came meanwhile
		}
	}
	problems := d.showBridges(pod)
	if d.table.actual == nil {
		if err := d.look(); err != nil {
			return err
		}
		err = d.pass(ctx, &program.Program{}, &report)
	} else {
		with := ruleset.WithMemory(d.table.actual, d.links.Carried(), d.settings.saved())
		err = errors.Join(d.transact(ctx, nft.Diff(d.table.actual, ruleset.WithoutPods(with, addrs))), d.disown(addrs))
	}
	report.add(problems...)
	return errors.Join(err, report.blocking())
}

// showBridges makes those of the interfaces that are bridges hand their packets to
// the IP hooks.
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

// blocking returns the problems because of which policies are not true.
func (r *Report) blocking() error {
	var errs []error
	for _, p := range slices.DeleteFunc(slices.Clone(r.Problems), func(p decide.Problem) bool { return !p.Blocking }) {
		errs = append(errs, fmt.Errorf("%s: %s (%s)", p.Subject, p.Text, p.Cure))
	}
	return errors.Join(errs...)
}
