// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Budgets bound the cost that the author of a policy can cause on every node. They are counted in
// entries: see Policy.Size. docs/limits.md gives the reasons for the figures.
const (
	// MaxPolicyEntries is the budget of one policy.
	MaxPolicyEntries = 16_384
	// MaxNamespaceEntries is the budget of all policies of a namespace together.
	MaxNamespaceEntries = 65_536
	// MaxSubject is the largest size of a subject selector that is kept.
	MaxSubject = 1_024
)

const (
	policyEntries = 8  // of an empty policy
	smallSubject  = 64 // kept whatever the budget says
)

// Size returns the cost of the policy as written, in entries: its rules, and in them the ports, the
// peers, the exceptions of blocks, and the values of selectors. A selector that must be matched
// against every pod counts more: see Selector.Size.
func (p *Policy) Size() int {
	if p.leftOut > 0 {
		return p.leftOut
	}
	size := policyEntries + p.Subject.Size()
	for _, rules := range [][]Rule{p.Ingress, p.Egress} {
		for i := range rules {
			size += rules[i].size()
		}
	}
	return size
}

func (r *Rule) size() int {
	size := 1 + len(r.Ports.List)
	for i := range r.Peers.List {
		e := &r.Peers.List[i]
		switch {
		case e.Block != nil:
			size += 1 + len(e.Block.Except)
		case e.Namespaces != nil:
			size += e.Pods.Size() + e.Namespaces.Size()
		default:
			size += e.Pods.Size()
		}
	}
	return size
}

// withoutRules returns the form that a policy takes above a budget: it isolates the same pods and
// allows nothing. A large selector is not kept; the policy then isolates every pod of the
// namespace.
func (p *Policy) withoutRules() *Policy {
	q := &Policy{Key: p.Key, UID: p.UID, Version: p.Version, Audit: p.Audit, OwnMode: p.OwnMode,
		ByNamespace: p.ByNamespace, Subject: p.Subject,
		IsolatesIngress: p.IsolatesIngress, IsolatesEgress: p.IsolatesEgress, leftOut: p.Size()}
	if q.Subject.Size() > smallSubject {
		q.Subject = Everything()
	}
	return q
}

// budget is the use that the policies of one namespace make of their budget.
type budget struct {
	policies map[Key]written
	ranking  ranking // of all policies
	total    int
	left     []Key // policies that are left out, sorted
}

// written is kept of a policy even if the policy is left out.
type written struct {
	size    int
	version string
	left    bool // left out, for lack of room
}

func writtenOf(p *Policy) written {
	return written{size: p.Size(), version: p.Version, left: p.leftOut > 0}
}

// newBudgets returns the budgets of a complete list of policies.
func newBudgets(list []*Policy) budgets {
	all := budgets{}
	for _, p := range list {
		all.of(p.Key.Namespace).policies[p.Key] = writtenOf(p)
	}
	for _, b := range all {
		b.ranking = newRanking(b.policies)
		for k, w := range b.policies {
			b.total += w.size
			if w.left {
				b.left = append(b.left, k)
			}
		}
		slices.SortFunc(b.left, Key.Compare)
	}
	return all
}

func (b *budget) set(p *Policy) {
	b.remove(p.Key)
	w := writtenOf(p)
	b.policies[p.Key] = w
	b.ranking.insert(ranked{w.size, p.Key})
	b.total += w.size
	b.mark(p.Key, w.left)
}

func (b *budget) remove(k Key) {
	w, known := b.policies[k]
	if !known {
		return
	}
	b.mark(k, false)
	b.ranking.remove(ranked{w.size, k})
	b.total -= w.size
	delete(b.policies, k)
}

// mark records whether a policy is left out.
func (b *budget) mark(k Key, left bool) {
	w := b.policies[k]
	w.left = left
	b.policies[k] = w
	switch i, found := slices.BinarySearchFunc(b.left, k, Key.Compare); {
	case left && !found:
		b.left = slices.Insert(b.left, i, k)
	case !left && found:
		b.left = slices.Delete(b.left, i, i+1)
	}
}

// diagnostics names the policies that are left out; nil if there are none.
func (b *budget) diagnostics(namespace string) []Diagnostic {
	if len(b.left) == 0 {
		return nil
	}
	const shown = 5
	names := ""
	for i, k := range b.left[:min(shown, len(b.left))] {
		if i > 0 {
			names += ", "
		}
		names += k.Name
	}
	if more := len(b.left) - shown; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return []Diagnostic{{Severity: Error, Kind: "Namespace", Object: Key{Name: namespace},
		Message: fmt.Sprintf("its NetworkPolicies have %d entries together, more than %d: the largest ones allow "+
			"nothing, their pods stay isolated: %s",
			b.total, MaxNamespaceEntries, names),
		Cure: "write larger CIDR blocks and port ranges, or remove policies; docs/limits.md says how entries are " +
			"counted",
	}}
}

// budgetOrigin is the origin of the diagnostics of a namespace's budget.
type budgetOrigin struct{ namespace string }

// budgets holds the budget of each namespace.
type budgets map[string]*budget

func (list budgets) of(namespace string) *budget {
	b := list[namespace]
	if b == nil {
		b = &budget{policies: map[Key]written{}}
		list[namespace] = b
	}
	return b
}

// setPolicy stores a policy, or removes it if p is nil, within the budget of its namespace. Its
// cost does not grow with the other policies of the namespace.
func (s *Store) setPolicy(k Key, p *Policy) (changed bool) {
	changed = s.noteAudit(k, p)
	b := s.budgets.of(k.Namespace)
	was := b.over()
	if p == nil {
		b.remove(k)
	} else {
		p = s.counted(p)
		b.set(p)
	}
	changed = s.policies.set(k, p) || changed
	for _, moved := range b.ranking.settle() {
		changed = s.fit(b, moved.key) || changed
	}
	changed = s.fit(b, k) || changed
	if was || b.over() {
		changed = s.setDiagnostics(budgetOrigin{k.Namespace}, b.diagnostics(k.Namespace)) || changed
	}
	if len(b.policies) == 0 {
		delete(s.budgets, k.Namespace)
	}
	return changed
}

// over reports whether the budget is exceeded or a policy is left out.
func (b *budget) over() bool { return b.total > MaxNamespaceEntries || len(b.left) > 0 }

// fit leaves a policy out if the budget has no room for it, and requests it from the source if it
// was left out and now has room.
func (s *Store) fit(b *budget, k Key) (changed bool) {
	w, known := b.policies[k]
	switch fits := b.ranking.fits(ranked{w.size, k}); {
	case known && !w.left && !fits:
		b.mark(k, true)
		return s.policies.set(k, s.policies.objects.get(k).withoutRules())
	case w.left && fits:
		s.want(k)
	}
	return false
}

// replacePolicies makes the policies the only ones.
func (s *Store) replacePolicies(list []*Policy) (changed bool) {
	before := s.budgets
	list, changed = s.countedAll(list)
	s.budgets = newBudgets(list)
	changed = s.policies.replace(list) || changed
	for ns, b := range s.budgets {
		if b.over() {
			for _, k := range slices.SortedFunc(maps.Keys(b.policies), Key.Compare) {
				changed = s.fit(b, k) || changed
			}
		}
		changed = s.setDiagnostics(budgetOrigin{ns}, b.diagnostics(ns)) || changed
	}
	for ns := range before {
		if s.budgets[ns] == nil {
			changed = s.setDiagnostics(budgetOrigin{ns}, nil) || changed
		}
	}
	return changed
}

// want requests a policy from the source.
func (s *Store) want(k Key) {
	s.wanted[k] = true
	select {
	case s.wants <- struct{}{}:
	default:
	}
}

// WantAgain requests a policy again after it could not be read.
func (s *Store) WantAgain(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want(k)
}

// Wants receives a value when policies must be read again: they were left out, and the budget of
// their namespace has room for them now.
func (s *Store) Wants() <-chan struct{} { return s.wants }

// Wanted returns the policies that must be read again, and clears the list.
func (s *Store) Wanted() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(s.wanted), Key.Compare)
	clear(s.wanted)
	return keys
}

// Supply stores a policy that was wanted. It changes nothing if the policy is no longer left out,
// or has another version by now: that version will arrive by itself.
func (tx *Tx) Supply(p *Policy) {
	b := tx.store.budgets[p.Key.Namespace]
	if b == nil {
		return
	}
	if w := b.policies[p.Key]; w.left && w.version == p.Version {
		tx.note(tx.store.setPolicy(p.Key, p))
	}
}

// Trim removes the rules of the policies for which the budget of their namespace has no room,
// whatever else is in the list. A source calls it while it collects a list, so that the list never
// grows much larger than what is kept.
func Trim(list []*Policy) {
	all := newBudgets(list)
	for i, p := range list {
		if b := all[p.Key.Namespace]; p.leftOut == 0 && !b.ranking.fits(ranked{b.policies[p.Key].size, p.Key}) {
			list[i] = p.withoutRules()
		}
	}
}

// samePolicy reports whether two policies mean the same.
func samePolicy(a, b *Policy) bool {
	x, y := *a, *b
	x.Version, y.Version = "", ""
	return reflect.DeepEqual(x, y)
}
