// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Small keys in a small table: most of them stand in each other's way.
func TestObjectsAgreeWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, m := newObjects(func(n *Namespace) Key { return Key{Name: n.Name} }), map[Key]*Namespace{}
		for i, n := range rapid.SliceOfN(rapid.IntRange(-40, 40), 0, 400).Draw(t, "steps") {
			k := Key{Name: fmt.Sprint(max(n, -n))}
			if n < 0 || i > 300 { // at the end it shrinks
				o.remove(k)
				delete(m, k)
			} else {
				v := &Namespace{Name: k.Name}
				o.put(v)
				m[k] = v
			}
			if o.get(k) != m[k] {
				t.Fatalf("after step %d: %v is %v, want %v", i, k, o.get(k), m[k])
			}
		}
		seen := 0
		for v := range o.all() {
			seen++
			if m[Key{Name: v.Name}] != v {
				t.Fatalf("%v is yielded, want %v", v, m[Key{Name: v.Name}])
			}
		}
		for k, v := range m {
			if o.get(k) != v {
				t.Fatalf("%v is %v, want %v", k, o.get(k), v)
			}
		}
		if seen != len(m) || o.count != len(m) || len(o.slots) > max(minSlots, 128) {
			t.Fatalf("%d objects in %d slots, %d yielded, want %d", o.count, len(o.slots), seen, len(m))
		}
	})
}
