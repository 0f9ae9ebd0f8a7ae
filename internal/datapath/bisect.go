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

// A commit is one transaction: a single element or rule that the kernel refuses blocks all changes. So a
// commit that is refused twice is bisected until the refused objects are known (objects.go). All other
// objects are committed without them.

// maxTries bounds the commits of one search. Objects not tried by then are left out.
const maxTries = 64

// division finds the refused objects by trying groups of them together with the accepted ones.
type division struct {
	groups [][]object // still to be tried
	tries  int
}

// next returns the group to try; nil if none is left or the bound is reached.
func (d *division) next() []object {
	if len(d.groups) == 0 || d.tries == maxTries {
		return nil
	}
	return d.groups[0]
}

// result records the kernel's answer for the group. A refused group of several objects is split in halves.
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

// refused reports whether the kernel rejected the content of a commit. Lack of memory or rights, and a
// missing answer, do not count.
func refused(err error) bool {
	var r commitError
	if !errors.As(err, &r) {
		return false
	}
	return slices.ContainsFunc([]unix.Errno{unix.EEXIST, unix.EINVAL, unix.ENOENT, unix.EBUSY, unix.E2BIG,
		unix.ENOSPC, unix.ERANGE, unix.EOPNOTSUPP, unix.EMFILE, unix.EMLINK, unix.ELOOP, unix.EOVERFLOW},
		func(e unix.Errno) bool { return errors.Is(err, e) })
}

// enforce makes the kernel agree with the program, except for refused objects. It forgets a refused object
// once the program no longer holds it in that version.
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
		return err // another program may have changed the table: the next pass reads it
	}
	if d.decider.Records() {
		if err = d.withoutRecords(ctx, p, report, err); err == nil {
			d.accept(p, report)
			return nil
		}
		if !refused(err) {
			return err
		}
	}
	left, found := d.search(ctx, p)
	if found != nil {
		return errors.Join(err, found)
	}
	d.left, *report = left, Report{}
	d.log.Error("the kernel refuses some rules, they are left out and closed", "count", len(left.objects), "err", err)
	if err := d.pass(ctx, p, report); err != nil {
		return err
	}
	d.accept(p, report)
	return nil
}

// accept notes that the program is in force without the objects left out. While pods are held, the kernel
// has not seen their objects yet.
func (d *Datapath) accept(p *program.Program, report *Report) {
	if len(report.Held) == 0 {
		d.refusals = 0
	}
	d.sayLeft(p, report)
}

// withoutRecords commits a refused program without the rules that record denied packets: a kernel may lack
// what only they need, and they are in every commit of a node that records. If that is refused, too, they are
// not known to be the cause, and stay wanted.
func (d *Datapath) withoutRecords(ctx context.Context, p *program.Program, report *Report, why error) error {
	less := Report{}
	d.decider.Unrecorded = why.Error()
	if err := d.pass(ctx, p, &less); err != nil {
		d.decider.Unrecorded = ""
		return err
	}
	*report = less
	return nil
}

// retryLeft lets the next pass try the objects left out again, and the records of denied packets. If they are
// refused again, that pass bisects at once.
func (d *Datapath) retryLeft() bool {
	some := len(d.left.objects) > 0 || d.decider.Unrecorded != ""
	if some {
		d.left, d.refusals, d.decider.Unrecorded = omitted{}, 1, ""
	}
	return some
}

// search finds the objects that the kernel refuses. If it refuses all without them, the records of denied
// packets are left out, too.
func (d *Datapath) search(ctx context.Context, p *program.Program) (omitted, error) {
	left, err := d.refusedObjects(ctx, p)
	if !refused(err) || !d.decider.Records() {
		return left, err
	}
	d.decider.Unrecorded = err.Error()
	if left, err = d.refusedObjects(ctx, p); err != nil {
		d.decider.Unrecorded = ""
	}
	return left, err
}

// refusedObjects closes refused pods by address. If the kernel refuses that too, they are removed.
func (d *Datapath) refusedObjects(ctx context.Context, p *program.Program) (omitted, error) {
	left, err := d.divide(ctx, p, false)
	if refused(err) {
		left, err = d.divide(ctx, p, true)
	}
	return left, err
}

// divide returns the objects that the kernel refuses. It tries only new and changed objects; objects in
// force that are still wanted stay, whichever process added them. An error means that the kernel refuses
// the program even without the new objects, or did not answer.
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

// try commits part of a program, relative to the kernel's state (invariant 8). It leaves the connection
// table alone: pods that are closed during a search keep their connections.
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

// reread reads the table if its state is unknown.
func (d *Datapath) reread(ctx context.Context) error {
	if err := d.renew(); err != nil || d.table.known {
		return err
	}
	return d.trust(d.readTable(ctx, &Report{}))
}

// users names the pods that use a chain.
type users map[string]string

func (u users) add(pod string, chains ...string) {
	for _, chain := range chains {
		if u[chain] == "" {
			u[chain] = pod
		} else if !strings.HasSuffix(u[chain], " and others") && u[chain] != pod {
			u[chain] += " and others"
		}
	}
}

// sayLeft adds the problem that names the objects left out, and the pods that they close or do not audit.
func (d *Datapath) sayLeft(p *program.Program, report *Report) {
	if len(d.left.objects) == 0 {
		return
	}
	closed, audited := users{}, users{}
	for _, pod := range p.Pods {
		closed.add(pod.Name, pod.Ingress, pod.Egress)
		audited.add(pod.Name, pod.AuditIngress, pod.AuditEgress)
	}
	var names, unaudited []string
	opens := false
	for o := range d.left.objects {
		switch {
		case o.chain == "":
			names = append(names, o.String())
		case closed[o.chain] != "" || audited[o.chain] == "":
			names = append(names, o.String()+" of "+closed[o.chain])
		}
		if o.chain != "" && audited[o.chain] != "" {
			unaudited = append(unaudited, o.String()+" of "+audited[o.chain])
		}
		opens = opens || o.isPod() && d.left.gone // a removed pod is open where unknown pods are
	}
	var said []string
	if len(names) > 0 {
		said = append(said, "so they are left out and closed: "+decide.FirstOf(names))
	}
	if len(unaudited) > 0 {
		said = append(said, "so they are left out and not audited: "+decide.FirstOf(unaudited))
	}
	report.add(decide.Problem{Subject: "left out", Blocking: opens,
		Text: "the kernel refuses the rules of these, " + strings.Join(said, "; "),
		Cure: "change or delete the policies of these pods, or the pods; " +
			"it is tried again when they change, and at each verification. " +
			"Please report it: it is a bug of podwall or a limit of this kernel"})
}
