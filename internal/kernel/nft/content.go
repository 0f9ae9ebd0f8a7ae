// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"iter"

	"github.com/podwall/podwall/internal/immutable"
)

// Content is the members of a set or map that may be large, shared with whoever makes them.
type Content interface {
	// All yields the members, in no particular order.
	All() iter.Seq[Entry]
	// Len returns their number. It may cost as much as counting them.
	Len() int
	// diff returns the members to add to and to remove from old. ok is false if old is of another kind.
	diff(old Content) (added, removed []Entry, ok bool)
}

// ContentOf returns the members that the elements of a set stand for: each for one, or for none. entry must
// depend on the element alone, and be the same for all versions of a map: two versions are compared by
// their elements.
func ContentOf[E immutable.Hasher](elements immutable.Set[E], entry func(E) (Entry, bool)) Content {
	return content[E]{elements, entry}
}

type content[E immutable.Hasher] struct {
	elements immutable.Set[E]
	entry    func(E) (Entry, bool)
}

// All implements Content.
func (c content[E]) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for e := range c.elements.All() {
			if entry, ok := c.entry(e); ok && !yield(entry) {
				return
			}
		}
	}
}

// Len implements Content.
func (c content[E]) Len() (n int) {
	for e := range c.elements.All() {
		if _, ok := c.entry(e); ok {
			n++
		}
	}
	return n
}

func (c content[E]) diff(old Content) (added, removed []Entry, ok bool) {
	before, ok := old.(content[E])
	if !ok {
		return nil, nil, false
	}
	more, less := c.elements.Diff(before.elements)
	added, removed = diffEntries(c.entries(less), c.entries(more))
	return added, removed, true
}

func (c content[E]) entries(list []E) (entries []Entry) {
	for _, e := range list {
		if entry, ok := c.entry(e); ok {
			entries = append(entries, entry)
		}
	}
	return entries
}

// members returns the members that are not in Elements or Ranges, in no particular order.
func (s *Set) members() []Entry {
	if s.Content == nil {
		return s.Entries
	}
	list := make([]Entry, 0, s.Content.Len())
	for e := range s.Content.All() {
		list = append(list, e)
	}
	return list
}

// diffMembers compares the members of two versions of a set. In a data map and in one that is Behind, those
// that only change their value are replaced; added and removed are the others.
func diffMembers(old, now *Set) (added, removed, replaced, by []Entry) {
	known := false
	if old.Content != nil && now.Content != nil {
		added, removed, known = now.Content.diff(old.Content)
	}
	if !known {
		added, removed = diffEntries(old.members(), now.members())
	}
	if now.Data == 0 && !now.Behind || len(added) == 0 || len(removed) == 0 {
		return added, removed, nil, nil
	}
	gone := make(map[Key]Entry, len(removed))
	for _, e := range removed {
		gone[e.Key] = e
	}
	var fresh []Entry
	for _, e := range added {
		if before, ok := gone[e.Key]; ok {
			replaced, by = append(replaced, before), append(by, e)
			delete(gone, e.Key)
		} else {
			fresh = append(fresh, e)
		}
	}
	var left []Entry
	for _, e := range removed {
		if _, ok := gone[e.Key]; ok {
			left = append(left, e)
		}
	}
	return fresh, left, replaced, by
}
