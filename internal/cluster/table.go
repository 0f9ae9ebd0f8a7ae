// SPDX-License-Identifier: Apache-2.0

package cluster

import "slices"

// table holds the objects of one kind, and what changed for each of its readers.
type table[T any] struct {
	objects objects[T]
	equal   func(a, b *T) bool
	main    journal[T]
	second  *journal[T] // of another reader; nil for none
}

// journal holds what changed for one reader since its last take.
type journal[T any] struct {
	before map[Key]*T // the value at the last take, for each object touched since
	taken  bool       // before the first take every object is new, and before is not filled
	fresh  bool       // something changed since the owner of the journal reset this
	// equal reports whether two values are the same for this reader. Either may be nil, for no object.
	equal func(a, b *T) bool
}

// forget begins anew: everything is new at the next take.
func (j *journal[T]) forget() { j.before, j.taken = map[Key]*T{}, false }

func newTable[T any](key func(*T) Key, equal func(a, b *T) bool) table[T] {
	same := func(a, b *T) bool { return a == b || a != nil && b != nil && equal(a, b) }
	return table[T]{objects: newObjects(key), equal: same, main: *newJournal(same)}
}

func newJournal[T any](equal func(a, b *T) bool) *journal[T] {
	return &journal[T]{before: map[Key]*T{}, equal: equal}
}

// set stores an object, or removes it if v is nil, and reports whether that changed anything for the
// main reader.
func (t *table[T]) set(k Key, v *T) bool {
	old := t.objects.get(k)
	if t.equal(old, v) {
		return false
	}
	if v == nil {
		t.objects.remove(k)
	} else {
		t.objects.put(v)
	}
	if t.second != nil {
		t.second.note(k, old, v)
	}
	return t.main.note(k, old, v)
}

func (j *journal[T]) note(k Key, old, v *T) bool {
	if j.equal(old, v) {
		return false
	}
	if _, touched := j.before[k]; j.taken && !touched {
		j.before[k] = old
	}
	j.fresh = true
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

// take returns the changes since the main reader's last take.
func (t *table[T]) take() []Change[T] {
	if !t.main.taken {
		return t.takeAll(&t.main)
	}
	for k, old := range t.main.before {
		if now := t.objects.get(k); old != nil && t.equal(old, now) {
			// The object changed and changed back. The reader of the changes still has the old
			// pointer, and the next change must name that as Old.
			t.objects.put(old)
		}
	}
	return t.takeChanged(&t.main)
}

// takeSecond returns the changes since the second reader's last take. Their Old is the same for that
// reader as what it has, but not always the same pointer.
func (t *table[T]) takeSecond() []Change[T] {
	if !t.second.taken {
		return t.takeAll(t.second)
	}
	return t.takeChanged(t.second)
}

func (t *table[T]) takeAll(j *journal[T]) []Change[T] {
	j.taken = true
	list := make([]Change[T], 0, t.objects.count)
	for v := range t.objects.all() {
		if !j.equal(nil, v) {
			list = append(list, Change[T]{New: v})
		}
	}
	return list
}

func (t *table[T]) takeChanged(j *journal[T]) []Change[T] {
	list := make([]Change[T], 0, len(j.before))
	for k, old := range j.before {
		if now := t.objects.get(k); !j.equal(old, now) {
			list = append(list, Change[T]{Old: old, New: now})
		}
	}
	j.before = map[Key]*T{}
	return slices.Clip(list)
}

func (t *table[T]) list() []*T { return slices.Collect(t.objects.all()) }

// sorted returns all objects in the order of their keys.
func (t *table[T]) sorted() []*T {
	return slices.SortedFunc(t.objects.all(), func(a, b *T) int { return t.objects.key(a).Compare(t.objects.key(b)) })
}
