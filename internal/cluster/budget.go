// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Budgets bound what the author of a policy can make every node spend. They are
// counted in entries: see Policy.Size. docs/limits.md has the reasons for the
// figures.
const (
	// MaxPolicyEntries is the budget of one policy.
	MaxPolicyEntries = 16_384
	// MaxNamespaceEntries is the budget of all policies of a namespace together.
	MaxNamespaceEntries = 65_536
	// MaxSubject is the size of the largest selector of subjects that is kept.
	MaxSubject = 1_024
)

const (
	policyEntries = 8  // of a policy with nothing in it
	smallSubject  = 64 // is kept whatever the budget says
)

// Size returns what the policy costs as it was written, in entries: its rules, and
// in them the ports, the peers, the exceptions of blocks, and the values of
// selectors. A selector that has to be asked about every pod counts more: see
// Selector.Size.
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

// withoutRules returns the policy as it is above a budget: it isolates the same
// pods and allows nothing. A large selector is not kept; then it isolates every
// pod of the namespace.
func (p *Policy) withoutRules() *Policy {
	q := &Policy{Key: p.Key, UID: p.UID, Version: p.Version, Subject: p.Subject,
		IsolatesIngress: p.IsolatesIngress, IsolatesEgress: p.IsolatesEgress, leftOut: p.Size()}
	if q.Subject.Size() > smallSubject {
		q.Subject = Everything()
	}
	return q
}

// budget is what the policies of one namespace take.
type budget struct {
	policies map[Key]written
	total    int
	left     int // how many of them are left out
}

// written is what is known of a policy also if it is left out.
type written struct {
	size    int
	version string
	left    bool // out, for lack of room
}

func (b *budget) set(p *Policy) {
	w := written{size: p.Size(), version: p.Version, left: p.leftOut > 0}
	b.put(p.Key, w)
}

func (b *budget) put(k Key, w written) {
	b.remove(k)
	b.policies[k] = w
	b.total += w.size
	if w.left {
		b.left++
	}
}

func (b *budget) remove(k Key) {
	w := b.policies[k]
	b.total -= w.size
	if w.left {
		b.left--
	}
	delete(b.policies, k)
}

// fits returns the policies that the budget has room for: the smallest ones, so
// that one large policy does not stop the others, and of equal ones the first by
// name. The answer depends on nothing but the sizes, and what has no room has none
// beside more policies either.
func (b *budget) fits() map[Key]bool {
	keys := slices.SortedFunc(maps.Keys(b.policies), func(x, y Key) int {
		return cmp.Or(cmp.Compare(b.policies[x].size, b.policies[y].size), x.Compare(y))
	})
	fit, sum := make(map[Key]bool, len(keys)), 0
	for _, k := range keys {
		if sum += b.policies[k].size; sum > MaxNamespaceEntries {
			break
		}
		fit[k] = true
	}
	return fit
}

// diagnostics says what is left out; nothing if nothing is.
func (b *budget) diagnostics(namespace string) []Diagnostic {
	var keys []Key
	for k, w := range b.policies {
		if w.left {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, Key.Compare)
	const shown = 5
	names := ""
	for i, k := range keys[:min(shown, len(keys))] {
		if i > 0 {
			names += ", "
		}
		names += k.Name
	}
	if more := len(keys) - shown; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return []Diagnostic{{Severity: Error, Kind: "Namespace", Object: Key{Name: namespace},
		Message: fmt.Sprintf("its NetworkPolicies have %d entries together, more than %d: the largest ones allow nothing, their pods stay isolated: %s",
			b.total, MaxNamespaceEntries, names),
		Cure: "write larger CIDR blocks and port ranges, or remove policies; docs/limits.md says how entries are counted",
	}}
}

// budgetOrigin is the origin of the diagnostics of a namespace's budget.
type budgetOrigin struct{ namespace string }

// budgets are those of all namespaces.
type budgets map[string]*budget

func (list budgets) of(namespace string) *budget {
	b := list[namespace]
	if b == nil {
		b = &budget{policies: map[Key]written{}}
		list[namespace] = b
	}
	return b
}

// setPolicy stores a policy, or removes it when it is nil, within the budget of
// its namespace.
func (s *Store) setPolicy(k Key, p *Policy) (changed bool) {
	b := s.budgets.of(k.Namespace)
	was := b.over()
	if p == nil {
		b.remove(k)
	} else {
		b.set(p)
	}
	changed = s.policies.set(k, p)
	if was || b.over() {
		changed = s.fit(b) || changed
		changed = s.setDiagnostics(budgetOrigin{k.Namespace}, b.diagnostics(k.Namespace)) || changed
	}
	if len(b.policies) == 0 {
		delete(s.budgets, k.Namespace)
	}
	return changed
}

// over reports whether there is more than the budget, or something was left out.
func (b *budget) over() bool { return b.total > MaxNamespaceEntries || b.left > 0 }

// fit leaves out what the budget has no room for, and asks for what it has room
// for again.
func (s *Store) fit(b *budget) (changed bool) {
	fits := b.fits()
	for k, w := range b.policies {
		switch {
		case !w.left && !fits[k]:
			w.left = true
			b.put(k, w)
			changed = s.policies.set(k, s.policies.objects.get(k).withoutRules()) || changed
		case w.left && fits[k]:
			s.want(k)
		}
	}
	return changed
}

// replacePolicies makes the policies the only ones.
func (s *Store) replacePolicies(list []*Policy) (changed bool) {
	before := s.budgets
	s.budgets = budgets{}
	for _, p := range list {
		s.budgets.of(p.Key.Namespace).set(p)
	}
	changed = s.policies.replace(list)
	for ns, b := range s.budgets {
		if b.over() {
			changed = s.fit(b) || changed
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

// want asks the source for a policy.
func (s *Store) want(k Key) {
	s.wanted[k] = true
	select {
	case s.wants <- struct{}{}:
	default:
	}
}

// WantAgain has a policy asked for once more, after it could not be read.
func (s *Store) WantAgain(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want(k)
}

// Wants receives when policies have to be read again: the budget of their
// namespace left them out, and has room for them now.
func (s *Store) Wants() <-chan struct{} { return s.wants }

// Wanted returns the policies that have to be read again, and forgets that they
// were asked for.
func (s *Store) Wanted() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(s.wanted), Key.Compare)
	clear(s.wanted)
	return keys
}

// Supply stores a policy that was wanted. It is no change if the policy is not
// left out any more, or has another version meanwhile: that one is on its way.
func (tx *Tx) Supply(p *Policy) {
	b := tx.store.budgets[p.Key.Namespace]
	if b == nil {
		return
	}
	if w := b.policies[p.Key]; w.left && w.version == p.Version {
		tx.note(tx.store.setPolicy(p.Key, p))
	}
}

// Trim takes the rules away from those of the policies for which the budget of
// their namespace has no room, whatever comes beside them. A source calls it while
// it collects a list, so that the list is never much larger than what is kept.
func Trim(list []*Policy) {
	all := budgets{}
	for _, p := range list {
		all.of(p.Key.Namespace).set(p)
	}
	fits := map[string]map[Key]bool{}
	for ns, b := range all {
		if b.total > MaxNamespaceEntries {
			fits[ns] = b.fits()
		}
	}
	for i, p := range list {
		if fit := fits[p.Key.Namespace]; fit != nil && !fit[p.Key] && p.leftOut == 0 {
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
