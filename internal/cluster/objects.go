// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"hash/maphash"
	"iter"
)

// objects finds objects by the keys that they themselves have. It is a hash table
// of pointers, some 12 bytes an object, where a map with the keys in it takes 50:
// of 100,000 pods that is the eighth part of all.
type objects[T any] struct {
	key   func(*T) Key
	seed  maphash.Seed
	slots []*T // a power of two; an object is at the place of its hash, or behind
	count int
}

// The table doubles when more than maxLoad of ten slots are in use, and halves
// when less than minLoad are.
const (
	minSlots = 8
	maxLoad  = 8
	minLoad  = 2
)

func newObjects[T any](key func(*T) Key) objects[T] {
	return objects[T]{key: key, seed: maphash.MakeSeed(), slots: make([]*T, minSlots)}
}

// get returns the object, or nil.
func (o *objects[T]) get(k Key) *T { return o.slots[o.find(k)] }

// reserve makes room for so many objects at once: growing to it in steps would
// need the room of the last step as well.
func (o *objects[T]) reserve(count int) {
	slots := len(o.slots)
	for count*10 > slots*maxLoad {
		slots *= 2
	}
	if slots > len(o.slots) {
		o.resize(slots)
	}
}

// put stores an object under its key.
func (o *objects[T]) put(v *T) {
	if i := o.find(o.key(v)); o.slots[i] != nil {
		o.slots[i] = v
		return
	}
	o.count++
	if o.count*10 > len(o.slots)*maxLoad {
		o.resize(2 * len(o.slots))
	}
	o.slots[o.find(o.key(v))] = v
}

// remove takes an object out; an unknown key is no error.
func (o *objects[T]) remove(k Key) {
	hole := o.find(k)
	if o.slots[hole] == nil {
		return
	}
	o.slots[hole] = nil
	o.count--
	// What stands behind the hole may stand there only because it was taken.
	for i := o.next(hole); o.slots[i] != nil; i = o.next(i) {
		v := o.slots[i]
		o.slots[i] = nil
		o.slots[o.find(o.key(v))] = v
	}
	if len(o.slots) > minSlots && o.count*10 < len(o.slots)*minLoad {
		o.resize(len(o.slots) / 2)
	}
}

// all yields every object, in no particular order. Nothing may be changed
// meanwhile.
func (o *objects[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, v := range o.slots {
			if v != nil && !yield(v) {
				return
			}
		}
	}
}

// find returns the slot of the key: that of the object, or the free one where it
// would be.
func (o *objects[T]) find(k Key) int {
	i := int(maphash.Comparable(o.seed, k) & uint64(len(o.slots)-1))
	for o.slots[i] != nil && o.key(o.slots[i]) != k {
		i = o.next(i)
	}
	return i
}

func (o *objects[T]) next(i int) int { return (i + 1) & (len(o.slots) - 1) }

func (o *objects[T]) resize(slots int) {
	old := o.slots
	o.slots = make([]*T, slots)
	for _, v := range old {
		if v != nil {
			o.slots[o.find(o.key(v))] = v
		}
	}
}
