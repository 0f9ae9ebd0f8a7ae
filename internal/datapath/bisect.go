// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// A commit is one transaction: one element or rule that the kernel refuses stops
// the changes of everybody. So a commit that is refused twice is divided until it
// is known which objects the kernel refuses (objects.go). Everybody else goes on.

// maxTries bounds the commits of one search. What was not tried then is left out.
const maxTries = 64

// division finds the objects that are refused among many, by trying groups of
// them beside those that were accepted.
type division struct {
	groups [][]object // still to be tried
	tries  int
}

// next returns the group to try; nil if there is none, or if the bound is reached.
func (d *division) next() []object {
	if len(d.groups) == 0 || d.tries == maxTries {
		return nil
	}
	return d.groups[0]
}

// result takes the kernel's answer to the group. A refused group of several is
// tried in halves.
func (d *division) result(accepted bool) {
	group := d.groups[0]
	d.groups, d.tries = d.groups[1:], d.tries+1
	if half := len(group) / 2; !accepted && half > 0 {
		d.groups = append([][]object{group[:half], group[half:]}, d.groups...)
	}
}

// commitError is the kernel's answer to a commit.
type commitError struct{ error }

func (e commitError) Unwrap() error { return e.error }

// refused reports whether the kernel found fault with what a commit says. Lack of
// memory, of rights, or of an answer is no such fault.
func refused(err error) bool {
	var r commitError
	if !errors.As(err, &r) {
		return false
	}
	return slices.ContainsFunc([]unix.Errno{unix.EEXIST, unix.EINVAL, unix.ENOENT, unix.EBUSY, unix.E2BIG, unix.ENOSPC, unix.ERANGE,
		unix.EOPNOTSUPP, unix.EMFILE, unix.EMLINK, unix.ELOOP, unix.EOVERFLOW},
		func(e unix.Errno) bool { return errors.Is(err, e) })
}

// enforce makes the program true, without what the kernel refuses. It forgets what
// was left out when the object is not there any more, also as another version.
func (d *Datapath) enforce(ctx context.Context, p *program.Program, report *Report) error {
	d.left.keep(p)
	err := d.pass(ctx, p, report)
	if err == nil {
		d.accept(p, report)
		return nil
	}
	if !refused(err) {
		return err
	}
	d.refusals++
	if d.refusals < 2 && len(d.left.objects) == 0 && d.table.actual != nil {
		return err // somebody may have changed the table meanwhile: the next pass reads it
	}
	left, found := d.search(ctx, p)
	if found != nil {
		return errors.Join(err, found)
	}
	d.left, *report = left, Report{}
	d.log.Error("the kernel refuses a part of the rules, which is left out and closed", "count", len(left.objects), "err", err)
	if err := d.pass(ctx, p, report); err != nil {
		return err
	}
	d.accept(p, report)
	return nil
}

// accept notes that the program is in force without what is left out. Where pods
// are held the kernel was not asked about these yet.
func (d *Datapath) accept(p *program.Program, report *Report) {
	if len(report.Held) == 0 {
		d.refusals = 0
	}
	d.sayLeft(p, report)
}

// retryLeft has what was left out tried again with the next pass; if it is refused
// again, that pass divides at once.
func (d *Datapath) retryLeft() bool {
	some := len(d.left.objects) > 0
	if some {
		d.left, d.refusals = omitted{}, 1
	}
	return some
}

// search finds the objects that the kernel refuses. Pods among them are closed by
// their address. Where the kernel refuses that too, they are taken out.
func (d *Datapath) search(ctx context.Context, p *program.Program) (omitted, error) {
	left, err := d.divide(ctx, p, false)
	if refused(err) {
		left, err = d.divide(ctx, p, true)
	}
	return left, err
}

// divide returns the objects that the kernel refuses. What is in force and still
// wanted stays so, whoever brought it: only what is new or changed is tried. An
// error says that the kernel refuses what is left without these, or that it could
// not be asked.
func (d *Datapath) divide(ctx context.Context, p *program.Program, gone bool) (omitted, error) {
	if err := d.reread(ctx); err != nil {
		return omitted{}, err
	}
	tried := newObjects(p, ruleset.FindInForce(d.table.actual, p))
	out := omitted{objects: make(map[object]bool, len(tried)), gone: gone}
	out.add(tried)
	if err := d.try(ctx, p, out); err != nil {
		return omitted{}, fmt.Errorf("without any new or changed pod, chain and member of a set: %w", err)
	}
	search := division{groups: [][]object{tried}}
	for group := search.next(); group != nil; group = search.next() {
		if err := ctx.Err(); err != nil {
			return omitted{}, err
		}
		out.remove(group)
		err := d.try(ctx, p, out)
		if err != nil && !refused(err) {
			return omitted{}, err
		}
		if err != nil {
			out.add(group)
		}
		search.result(err == nil)
	}
	return out, nil
}

// try commits a part of a program, from what the kernel holds (invariant 8). It
// leaves the connection table alone: what is closed for the time of a search only
// keeps its connections.
func (d *Datapath) try(ctx context.Context, p *program.Program, out omitted) error {
	if err := d.reread(ctx); err != nil {
		return err
	}
	w, err := d.observeWiring(ctx, p, addresses{}) // the table of bridge ports, which has the node's, stays
	if err != nil {
		return err
	}
	wired := d.decider.Wire(p, out.of(p), w)
	wired.Node.Restore = d.settings.saved()
	desired, ops := d.table.render(wired.Program, wired.Node)
	return d.trust(d.write(ctx, desired, ops))
}

// reread reads the table unless it is known.
func (d *Datapath) reread(ctx context.Context) error {
	if err := d.renew(); err != nil || d.table.known {
		return err
	}
	return d.trust(d.readTable(ctx, &Report{}))
}

// sayLeft adds the problem that names what is left out, and whom it closes.
func (d *Datapath) sayLeft(p *program.Program, report *Report) {
	if len(d.left.objects) == 0 {
		return
	}
	closed := map[string]string{}
	for _, pod := range p.Pods {
		for _, chain := range []string{pod.Ingress, pod.Egress} {
			if closed[chain] == "" {
				closed[chain] = pod.Name
			} else if !strings.HasSuffix(closed[chain], " and others") && closed[chain] != pod.Name {
				closed[chain] += " and others"
			}
		}
	}
	var names []string
	opens := false
	for o := range d.left.objects {
		text := o.String()
		if o.chain != "" {
			text += " of " + closed[o.chain]
		}
		names = append(names, text)
		opens = opens || o.isPod() && d.left.gone // where nobody else is closed either
	}
	report.add(decide.Problem{Subject: "left out", Blocking: opens,
		Text: "the kernel refuses the rules of these, so they are left out and closed: " + decide.FirstOf(names),
		Cure: "change or delete the policies of these pods, or the pods; it is tried again when they change, and at each verification. " +
			"Please report it: it is a mistake of podwall's or a limit of this kernel"})
}
