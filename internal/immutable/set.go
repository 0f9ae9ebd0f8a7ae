// SPDX-License-Identifier: Apache-2.0

// Package immutable holds an immutable set whose versions share structure. It allows the data path
// to be both pure and cheap: a program with 100,000 elements is a value, a version with one more
// element costs a few hundred bytes, and the difference between two versions is found in time
// proportional to the difference, because equal parts are the same pointers.
//
// It is below packages program and policy, and knows nothing of the meaning of the elements.
package immutable

import "iter"

// Hasher is an element. Hash must depend on the value only and spread well in
// all 64 bits.
type Hasher interface {
	comparable
	Hash() uint64
}

const (
	fanoutBits = 3
	fanout     = 1 << fanoutBits
	leafMax    = 16                 // elements a leaf holds before it splits
	maxDepth   = 64 / fanoutBits    // below, the hash has no bits left
	mask       = uint64(fanout - 1) // selects the child from a shifted hash
)

// Set is an immutable set. The zero value is the empty set. Its shape depends
// on its content only, never on the order of insertions.
type Set[E Hasher] struct{ root *node[E] }

// node is a leaf (children is nil) or a branch (elements is nil).
type node[E Hasher] struct {
	count    int
	elements []E
	children *[fanout]*node[E]
}

// Of returns the set of the given elements, which it does not keep. Many at once
// cost a fraction of adding one by one.
func Of[E Hasher](elements ...E) Set[E] {
	hashed := make([]hash[E], len(elements))
	for i, e := range elements {
		hashed[i] = hash[E]{e, e.Hash()}
	}
	return Set[E]{build(hashed, make([]hash[E], len(elements)), 0)}
}

// hash is an element and the unused bits of its hash.
type hash[E Hasher] struct {
	element E
	rest    uint64
}

// build makes the node of the elements. Both lists have the same length; free is scratch space.
// Neither is kept.
func build[E Hasher](list, free []hash[E], depth int) *node[E] {
	if len(list) <= leafMax || depth == maxDepth {
		return leaf(list)
	}
	var start [fanout + 1]int
	for _, h := range list {
		start[h.rest&mask+1]++
	}
	for i := range fanout {
		start[i+1] += start[i]
	}
	next := start
	for _, h := range list {
		i := h.rest & mask
		free[next[i]] = hash[E]{h.element, h.rest >> fanoutBits}
		next[i]++
	}
	b := &node[E]{children: &[fanout]*node[E]{}}
	for i := range fanout {
		from, to := start[i], start[i+1]
		b.children[i] = build(free[from:to], list[from:to], depth+1)
		b.count += b.children[i].len()
	}
	return b.join() // the list may contain an element several times
}

func leaf[E Hasher](list []hash[E]) *node[E] {
	if len(list) == 0 {
		return nil
	}
	n := &node[E]{elements: make([]E, 0, len(list))}
	for _, h := range list {
		if n.index(h.element) < 0 {
			n.elements = append(n.elements, h.element)
		}
	}
	n.count = len(n.elements)
	return n
}

// Len returns the number of elements.
func (s Set[E]) Len() int { return s.root.len() }

// Has reports whether the element is in the set.
func (s Set[E]) Has(e E) bool {
	n, h := s.root, e.Hash()
	for n != nil && n.children != nil {
		n, h = n.children[h&mask], h>>fanoutBits
	}
	return n != nil && n.index(e) >= 0
}

// Find returns an element with that hash for which match is true. It is for elements whose Hash
// depends on a part of them, the key.
func (s Set[E]) Find(hash uint64, match func(E) bool) (found E, ok bool) {
	n, h := s.root, hash
	for n != nil && n.children != nil {
		n, h = n.children[h&mask], h>>fanoutBits
	}
	if n == nil {
		return found, false
	}
	for _, e := range n.elements {
		if e.Hash() == hash && match(e) {
			return e, true
		}
	}
	return found, false
}

// With returns the set with the element added; the same set if it already contains it.
func (s Set[E]) With(e E) Set[E] { return Set[E]{s.root.with(e, e.Hash(), 0)} }

// Without returns the set without the element; the same set if it does not contain it.
func (s Set[E]) Without(e E) Set[E] { return Set[E]{s.root.without(e, e.Hash())} }

// All yields every element, in no particular order.
func (s Set[E]) All() iter.Seq[E] {
	return func(yield func(E) bool) { s.root.all(yield) }
}

// Same reports whether both are the same version. It may be false for equal sets that were built
// separately.
func (s Set[E]) Same(o Set[E]) bool { return s.root == o.root }

// Diff returns the elements to add to and remove from old to get s.
func (s Set[E]) Diff(old Set[E]) (added, removed []E) {
	d := differ[E]{}
	d.diff(old.root, s.root, 0)
	return d.added, d.removed
}

func (n *node[E]) len() int {
	if n == nil {
		return 0
	}
	return n.count
}

func (n *node[E]) index(e E) int {
	for i, x := range n.elements {
		if x == e {
			return i
		}
	}
	return -1
}

func (n *node[E]) with(e E, h uint64, depth int) *node[E] {
	switch {
	case n == nil:
		return &node[E]{count: 1, elements: []E{e}}
	case n.children != nil:
		old := n.children[h&mask]
		child := old.with(e, h>>fanoutBits, depth+1)
		if child == old {
			return n
		}
		return n.replaceChild(h&mask, child)
	case n.index(e) >= 0:
		return n
	}
	grown := &node[E]{count: n.count + 1, elements: append(append(make([]E, 0, n.count+1), n.elements...), e)}
	if grown.count > leafMax && depth < maxDepth {
		return grown.split(depth)
	}
	return grown
}

func (n *node[E]) split(depth int) *node[E] {
	b := &node[E]{count: n.count, children: &[fanout]*node[E]{}}
	for _, e := range n.elements {
		h := e.Hash() >> (depth * fanoutBits)
		b.children[h&mask] = b.children[h&mask].with(e, h>>fanoutBits, depth+1)
	}
	return b
}

func (n *node[E]) without(e E, h uint64) *node[E] {
	if n == nil {
		return nil
	}
	if n.children != nil {
		old := n.children[h&mask]
		child := old.without(e, h>>fanoutBits)
		if child == old {
			return n
		}
		return n.replaceChild(h&mask, child).join()
	}
	i := n.index(e)
	switch {
	case i < 0:
		return n
	case n.count == 1:
		return nil
	}
	rest := make([]E, 0, n.count-1)
	rest = append(append(rest, n.elements[:i]...), n.elements[i+1:]...)
	return &node[E]{count: len(rest), elements: rest}
}

func (n *node[E]) replaceChild(i uint64, child *node[E]) *node[E] {
	children := *n.children
	count := n.count - children[i].len() + child.len()
	children[i] = child
	return &node[E]{count: count, children: &children}
}

// join turns a branch that became small back into a leaf, so that the shape depends on the content
// only.
func (n *node[E]) join() *node[E] {
	if n.count > leafMax {
		return n
	}
	leaf := &node[E]{count: n.count, elements: make([]E, 0, n.count)}
	n.all(func(e E) bool { leaf.elements = append(leaf.elements, e); return true })
	return leaf
}

func (n *node[E]) all(yield func(E) bool) bool {
	if n == nil {
		return true
	}
	for _, e := range n.elements {
		if !yield(e) {
			return false
		}
	}
	if n.children != nil {
		for _, c := range n.children {
			if !c.all(yield) {
				return false
			}
		}
	}
	return true
}

// differ collects the difference between two versions.
type differ[E Hasher] struct{ added, removed []E }

func (d *differ[E]) diff(old, now *node[E], depth int) {
	if old == now {
		return
	}
	if old != nil && now != nil && old.children != nil && now.children != nil {
		for i := range fanout {
			d.diff(old.children[i], now.children[i], depth+1)
		}
		return
	}
	now.all(func(e E) bool {
		if !old.has(e, depth) {
			d.added = append(d.added, e)
		}
		return true
	})
	old.all(func(e E) bool {
		if !now.has(e, depth) {
			d.removed = append(d.removed, e)
		}
		return true
	})
}

func (n *node[E]) has(e E, depth int) bool {
	h := e.Hash() >> (depth * fanoutBits)
	for n != nil && n.children != nil {
		n, h = n.children[h&mask], h>>fanoutBits
	}
	return n != nil && n.index(e) >= 0
}
