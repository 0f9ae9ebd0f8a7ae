// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/nft"
)

// A commit is one transaction: one element or rule that the kernel refuses stops
// the changes of everybody. So a commit that is refused twice is divided until it
// is known which objects the kernel refuses. These are left out: a pod's address is
// then closed like that of no known pod, and a chain is empty, which closes the
// pods behind it. Everybody else goes on.

// object is a part of a program that can be left out: a chain with the sets that no
// other one needs, or the address of a pod.
type object struct {
	chain string     // or
	pod   filter.Pod // with its chains: a pod that changes is another object
}

func (o object) String() string {
	if o.chain != "" {
		return "chain " + o.chain
	}
	return fmt.Sprintf("pod %s (%s)", o.pod.Name, o.pod.Addr)
}

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

// objectsOf lists the objects of a program, chains first: what refers to a chain
// is refused without it.
func objectsOf(p *filter.Program) (list []object) {
	for _, c := range p.Chains {
		list = append(list, object{chain: c.Name})
	}
	for _, pod := range p.Pods {
		list = append(list, object{pod: pod})
	}
	return list
}

// leaveOut returns the program without the objects; the same program if it has none
// of them. A chain that is left out allows nothing.
func leaveOut(p *filter.Program, out map[object]bool) *filter.Program {
	if len(out) == 0 {
		return p
	}
	less := &filter.Program{Pods: slices.DeleteFunc(slices.Clone(p.Pods), func(pod filter.Pod) bool { return out[object{pod: pod}] })}
	needed := map[string]bool{}
	for _, c := range p.Chains {
		if out[object{chain: c.Name}] {
			c = &filter.Chain{Name: c.Name, Direction: c.Direction, Family: c.Family}
		}
		for _, r := range c.Rules {
			needed[r.PeerSet], needed[r.PortSet], needed[r.DestSet] = true, true, true
		}
		less.Chains = append(less.Chains, c)
	}
	less.Sets = slices.DeleteFunc(slices.Clone(p.Sets), func(s *filter.Set) bool { return !needed[s.Name] })
	return less
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

// makeOthers makes the program, without what the kernel refuses. It forgets what
// was left out when the object is not there any more, also as another version.
func (d *Datapath) makeOthers(ctx context.Context, p *filter.Program, report *Report) error {
	d.keepLeft(p)
	err := d.make(ctx, leaveOut(p, d.left), report)
	if err == nil {
		d.accept(p, report)
		return nil
	}
	if !refused(err) {
		return err
	}
	d.refusals++
	if d.refusals < 2 && len(d.left) == 0 && d.actual != nil {
		return err // somebody may have changed the table meanwhile: the next pass reads it
	}
	left, found := d.divide(ctx, p)
	if found != nil {
		return errors.Join(err, found)
	}
	d.left, *report = left, Report{}
	d.log.Error("the kernel refuses a part of the rules, which is left out and closed", "count", len(left), "err", err)
	if err := d.make(ctx, leaveOut(p, d.left), report); err != nil {
		return err
	}
	d.accept(p, report)
	return nil
}

// accept notes that the program is in force without what is left out.
func (d *Datapath) accept(p *filter.Program, report *Report) {
	d.refusals, d.accepted = 0, acceptedOf(p, d.left)
	d.sayLeft(p, report)
}

// acceptedOf returns the pods and chains of a program that are not left out. A chain
// that is left out is in force as an empty one: the kernel did not accept its rules.
func acceptedOf(p *filter.Program, out map[object]bool) *filter.Program {
	return &filter.Program{
		Pods:   without(p.Pods, out, func(pod filter.Pod) object { return object{pod: pod} }),
		Chains: without(p.Chains, out, func(c *filter.Chain) object { return object{chain: c.Name} }),
	}
}

// without returns the elements that are not left out; the same slice if nothing is.
func without[T any](list []T, out map[object]bool, of func(T) object) []T {
	if len(out) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(e T) bool { return out[of(e)] })
}

// keepLeft forgets the objects that the program does not have.
func (d *Datapath) keepLeft(p *filter.Program) {
	if len(d.left) == 0 {
		return
	}
	now := map[object]bool{}
	mark(now, objectsOf(p))
	maps.DeleteFunc(d.left, func(o object, _ bool) bool { return !now[o] })
}

// retryLeft has what was left out tried again with the next pass; if it is refused
// again, that pass divides at once.
func (d *Datapath) retryLeft() bool {
	some := len(d.left) > 0
	if some {
		d.left, d.refusals = nil, 1
	}
	return some
}

// divide returns the objects that the kernel refuses. What is in force and still
// wanted stays so: only what is new or changed is tried. An error says that the
// kernel refuses what is left without these, or that it could not be asked.
func (d *Datapath) divide(ctx context.Context, p *filter.Program) (map[object]bool, error) {
	// Without a table, or with one that knows no pod, nothing is in force that could
	// be lost.
	nothing := d.actual == nil || len(nft.LocalPods(d.actual, &filter.Program{})) == 0
	if d.accepted == nil && !nothing {
		return nil, errors.New("the rules of an earlier agent stay: which part is refused is not looked for before this agent's rules were accepted once")
	}
	tried := newObjects(p, d.accepted)
	if nothing {
		tried = objectsOf(p)
	}
	out := make(map[object]bool, len(tried))
	mark(out, tried)
	if err := d.tryWithout(ctx, p, out); err != nil {
		return nil, fmt.Errorf("without any new or changed pod and chain: %w", err)
	}
	search := division{groups: [][]object{tried}}
	for group := search.next(); group != nil; group = search.next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, o := range group {
			delete(out, o)
		}
		err := d.tryWithout(ctx, p, out)
		if err != nil && !refused(err) {
			return nil, err
		}
		if err != nil {
			mark(out, group)
		}
		search.result(err == nil)
	}
	return out, nil
}

// newObjects lists the objects of a program that are not accepted.
func newObjects(p, accepted *filter.Program) (list []object) {
	known := map[object]bool{}
	if accepted != nil {
		mark(known, objectsOf(accepted))
	}
	for _, o := range objectsOf(p) {
		if !known[o] {
			list = append(list, o)
		}
	}
	return list
}

func mark(m map[object]bool, list []object) {
	for _, o := range list {
		m[o] = true
	}
}

// tryWithout tries a program without some objects. What is accepted is in force,
// also if the search does not end.
func (d *Datapath) tryWithout(ctx context.Context, p *filter.Program, out map[object]bool) error {
	err := d.try(ctx, leaveOut(p, out))
	if err == nil {
		d.accepted = acceptedOf(p, out)
	}
	return err
}

// try commits a part of a program, from what the kernel holds (invariant 8).
func (d *Datapath) try(ctx context.Context, p *filter.Program) error {
	if err := d.renew(); err != nil {
		return err
	}
	var nobodys Report
	if !d.known {
		if err := d.read(&nobodys); err != nil {
			return d.trust(err)
		}
	}
	paths, err := d.links.Find(p.Pods)
	if err != nil {
		return err
	}
	node := d.node(p, p, paths, &nobodys)
	node.Cut = len(d.cuts.refused) > 0
	return d.trust(d.write(ctx, d.renderer.Render(p, node), nil))
}

// sayLeft adds the problem that names what is left out, and whom it closes.
func (d *Datapath) sayLeft(p *filter.Program, report *Report) {
	if len(d.left) == 0 {
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
	for o := range d.left {
		text := o.String()
		if o.chain != "" {
			text += " of " + closed[o.chain]
		}
		names = append(names, text)
		opens = opens || o.chain == "" && d.options.OpenUnknown
	}
	slices.Sort(names)
	const shown = 5
	text := strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	report.Problems = append(report.Problems, Problem{Subject: "left out", Blocking: opens,
		Text: "the kernel refuses the rules of these, so they are left out and closed: " + text,
		Cure: "change or delete the policies of these pods, or the pods; it is tried again when they change, and at each verification. Please report it: it is a mistake of podwall's or a limit of this kernel"})
}
