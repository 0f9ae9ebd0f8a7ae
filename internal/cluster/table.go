// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"slices"
)

// table holds the objects of one kind, and the changes since the last take.
type table[T any] struct {
	objects objects[T]
	before  map[Key]*T // the value at the last take, for each object touched since
	taken   bool       // before the first take every object is new, and before is not filled
	equal   func(a, b *T) bool
}

func newTable[T any](key func(*T) Key, equal func(a, b *T) bool) table[T] {
	return table[T]{objects: newObjects(key), before: map[Key]*T{}, equal: equal}
}

// set stores an object, or removes it if v is nil, and reports whether that changed anything.
func (t *table[T]) set(k Key, v *T) bool {
	old := t.objects.get(k)
	if old == v || old != nil && v != nil && t.equal(old, v) {
		return false
	}
	if _, touched := t.before[k]; t.taken && !touched {
		t.before[k] = old
	}
	if v == nil {
		t.objects.remove(k)
	} else {
		t.objects.put(v)
	}
	return true
}

func (t *table[T]) replace(list []*T) bool {
	t.objects.reserve(len(list))
	if t.objects.count == 0 {
		return t.add(list)
	}
	keep := make(map[Key]bool, len(list))
	for _, v := range list {
		keep[t.objects.key(v)] = true
	}
	changed := t.add(list)
	for _, v := range t.list() {
		if k := t.objects.key(v); !keep[k] {
			changed = t.set(k, nil) || changed
		}
	}
	return changed
}

func (t *table[T]) add(list []*T) (changed bool) {
	for _, v := range list {
		changed = t.set(t.objects.key(v), v) || changed
	}
	return changed
}

func (t *table[T]) take() []Change[T] {
	if !t.taken {
		t.taken = true
		list := make([]Change[T], 0, t.objects.count)
		for v := range t.objects.all() {
			list = append(list, Change[T]{New: v})
		}
		return list
	}
	list := make([]Change[T], 0, len(t.before))
	for k, old := range t.before {
		now := t.objects.get(k)
		switch {
		case old == now:
		case old != nil && now != nil && t.equal(old, now):
			// The object changed and changed back. The reader of the changes still has the old
			// pointer, and the next change must name that as Old.
			t.objects.put(old)
		default:
			list = append(list, Change[T]{Old: old, New: now})
		}
	}
	t.before = map[Key]*T{}
	return slices.Clip(list)
}

func (t *table[T]) list() []*T { return slices.Collect(t.objects.all()) }

func (s *Snapshot) sort() {
	slices.SortFunc(s.Namespaces, func(a, b *Namespace) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Pods, func(a, b *Pod) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(s.Policies, func(a, b *Policy) int { return a.Key.Compare(b.Key) })
}
