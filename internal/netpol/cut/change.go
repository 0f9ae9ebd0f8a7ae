// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/netpol/program"
)

// Change lists the pods for which a new program may deny more than the old one. The lists are
// sorted. An address is in at most one of them.
type Change struct {
	// Denied are pods whose rules changed, so that traffic may be denied which was allowed. Shrunk
	// are pods with the same rules of which a set lost a member: the change was in other pods.
	Denied, Shrunk []netip.Addr
	// Added are addresses that belonged to no pod before; Left belong to no pod any more; Moved
	// belong to another pod now.
	Added, Left, Moved []netip.Addr
}

// None reports whether no existing connection can have become denied.
func (c Change) None() bool {
	return len(c.Denied)+len(c.Shrunk)+len(c.Added)+len(c.Left)+len(c.Moved) == 0
}

// Touched returns all addresses of the change, sorted.
func (c Change) Touched() []netip.Addr {
	all := slices.Concat(c.Denied, c.Shrunk, c.Added, c.Left, c.Moved)
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// Compare returns where a new program may deny more than the old one. It errs on the safe side: a
// different chain counts as worse, whatever its rules are. Only pods that are certainly allowed the
// same are left out: the same rules, with sets that lost no member.
func Compare(before, now *program.Program) Change {
	var c Change
	w := worse{before: before, now: now, chains: map[string]degree{}}
	eachPod(before.Pods, now.Pods, func(was, is *program.Pod) {
		switch {
		case is == nil:
			c.Left = append(c.Left, was.Addr)
		case was == nil:
			c.Added = append(c.Added, is.Addr)
		case was.Name != is.Name || was.ID != is.ID:
			c.Moved = append(c.Moved, is.Addr)
		default:
			switch max(w.chain(was.Ingress, is.Ingress), w.chain(was.Egress, is.Egress)) {
			case otherRules:
				c.Denied = append(c.Denied, is.Addr)
			case fewerMembers:
				c.Shrunk = append(c.Shrunk, is.Addr)
			}
		}
	})
	return c
}

// eachPod walks two sorted lists and calls f with the old and new pod of each address; one of them
// is nil if the address is in one list only.
func eachPod(before, now []program.Pod, f func(was, is *program.Pod)) {
	for len(before) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0].Addr.Compare(now[0].Addr) < 0:
			f(&before[0], nil)
			before = before[1:]
		case len(before) == 0 || before[0].Addr != now[0].Addr:
			f(nil, &now[0])
			now = now[1:]
		default:
			f(&before[0], &now[0])
			before, now = before[1:], now[1:]
		}
	}
}

// degree is how a chain may have become worse.
type degree uint8

const (
	notWorse degree = iota
	fewerMembers
	otherRules
)

// worse finds chains that may deny more than before, and checks each once.
type worse struct {
	before, now *program.Program
	chains      map[string]degree // by name
	shrunk      map[string]bool   // sets that lost a member, computed when first needed
}

func (w *worse) chain(before, now string) degree {
	switch {
	case now == "":
		return notWorse
	case before != now:
		return otherRules
	}
	found, known := w.chains[now]
	if !known {
		found = w.rules(w.before.Chain(now), w.now.Chain(now))
		w.chains[now] = found
	}
	return found
}

func (w *worse) rules(before, now *program.Chain) degree {
	if now == nil || before != now && !reflect.DeepEqual(before, now) {
		return otherRules
	}
	if w.shrunk == nil {
		w.shrunk = shrunk(w.before.Sets, w.now.Sets)
	}
	if slices.ContainsFunc(setsOf(now), func(name string) bool { return w.shrunk[name] }) {
		return fewerMembers
	}
	return notWorse
}

// shrunk returns the sets that lost a member or are gone.
func shrunk(before, now []*program.Set) map[string]bool {
	found := map[string]bool{}
	for _, old := range before {
		i, ok := slices.BinarySearchFunc(now, old.Name,
			func(s *program.Set, name string) int {
				return strings.Compare(s.Name, name)
			})
		if !ok {
			found[old.Name] = true
			continue
		}
		if _, removed := now[i].Elements.Diff(old.Elements); len(removed) > 0 {
			found[old.Name] = true
		}
	}
	return found
}
