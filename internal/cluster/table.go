// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"maps"
	"slices"
)

// table is one kind of a Store: the objects, and what changed since the last
// take.
type table[K comparable, T any] struct {
	objects map[K]*T
	before  map[K]*T // the value at the last take, for each object touched since
	equal   func(a, b *T) bool
}

func newTable[K comparable, T any](equal func(a, b *T) bool) table[K, T] {
	return table[K, T]{objects: map[K]*T{}, before: map[K]*T{}, equal: equal}
}

// set stores an object, or removes it when it is nil, and reports whether
// that changed anything.
func (t *table[K, T]) set(k K, v *T) bool {
	old := t.objects[k]
	if old == v || old != nil && v != nil && t.equal(old, v) {
		return false
	}
	if _, touched := t.before[k]; !touched {
		t.before[k] = old
	}
	if v == nil {
		delete(t.objects, k)
	} else {
		t.objects[k] = v
	}
	return true
}

func (t *table[K, T]) replace(list []*T, key func(*T) K) bool {
	changed := false
	keep := make(map[K]bool, len(list))
	for _, v := range list {
		k := key(v)
		keep[k] = true
		changed = t.set(k, v) || changed
	}
	for k := range maps.Keys(t.objects) {
		if !keep[k] {
			changed = t.set(k, nil) || changed
		}
	}
	return changed
}

func (t *table[K, T]) take() []Change[T] {
	var list []Change[T]
	for k, old := range t.before {
		now := t.objects[k]
		switch {
		case old == now:
		case old != nil && now != nil && t.equal(old, now):
			// It went there and back. Whoever takes the changes still holds the
			// old value, which the next change has to name.
			t.objects[k] = old
		default:
			list = append(list, Change[T]{Old: old, New: now})
		}
	}
	t.before = map[K]*T{}
	return list
}

func (t *table[K, T]) list() []*T { return slices.Collect(maps.Values(t.objects)) }

func (s *Snapshot) sort() {
	slices.SortFunc(s.Namespaces, func(a, b *Namespace) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Pods, func(a, b *Pod) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(s.Policies, func(a, b *Policy) int { return a.Key.Compare(b.Key) })
}

func (s *Store) sortedDiagnostics() []Diagnostic {
	var all []Diagnostic
	for _, list := range s.diagnostics {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Object.Compare(b.Object),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return all
}
