// SPDX-License-Identifier: Apache-2.0

package immutable

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// element has a poor hash on purpose: half of its values collide.
type element uint16

func (e element) Hash() uint64 { return uint64(e/2) * 0x9e3779b97f4a7c15 }

func sorted(s Set[element]) []element { return slices.Sorted(s.All()) }

func TestSetAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Set[element]
		m := map[element]bool{}
		for _, e := range rapid.SliceOfN(rapid.Uint16Range(0, 600), 0, 800).Draw(t, "ops") {
			x := element(e % 300)
			if e < 400 {
				s, m[x] = s.With(x), true
			} else {
				s = s.Without(x)
				delete(m, x)
			}
		}
		if got, want := sorted(s), slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) {
			t.Fatalf("elements\n got %v\nwant %v", got, want)
		}
		if s.Len() != len(m) {
			t.Fatalf("Len() = %d, want %d", s.Len(), len(m))
		}
	})
}

// Find tells apart elements of one hash, in leaves and below branches.
func TestFindReturnsTheElementOfAKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Set[element]
		for _, e := range rapid.SliceOfN(rapid.Uint16Range(0, 300), 0, 300).Draw(t, "elements") {
			s = s.With(element(e))
		}
		for e := range element(302) {
			got, ok := s.Find(e.Hash(), func(x element) bool { return x == e })
			if ok != s.Has(e) || ok && got != e {
				t.Fatalf("Find of %d returns %d, %t", e, got, ok)
			}
		}
	})
}

func TestDiffLeadsFromOneSetToTheOther(t *testing.T) {
	gen := rapid.SliceOfN(rapid.Uint16Range(0, 400), 0, 500)
	rapid.Check(t, func(t *rapid.T) {
		var old, now Set[element]
		for _, e := range gen.Draw(t, "old") {
			old = old.With(element(e))
		}
		if rapid.Bool().Draw(t, "derived") {
			now = old
		}
		for _, e := range gen.Draw(t, "now") {
			if e%3 == 0 {
				now = now.Without(element(e))
			} else {
				now = now.With(element(e))
			}
		}
		added, removed := now.Diff(old)
		got := old
		for _, e := range added {
			if old.Has(e) || !now.Has(e) {
				t.Fatalf("%d is not an addition", e)
			}
			got = got.With(e)
		}
		for _, e := range removed {
			if !old.Has(e) || now.Has(e) {
				t.Fatalf("%d is not a removal", e)
			}
			got = got.Without(e)
		}
		if !slices.Equal(sorted(got), sorted(now)) {
			t.Fatalf("old plus diff\n got %v\nwant %v", sorted(got), sorted(now))
		}
	})
}

func TestOldVersionsStayAsTheyWere(t *testing.T) {
	var s Set[element]
	for e := range element(1000) {
		s = s.With(e)
	}
	before := sorted(s)
	changed := s.Without(7).With(2000)
	if !slices.Equal(sorted(s), before) {
		t.Error("With or Without changed the version that it was called on")
	}
	if changed.With(2000) != changed || changed.Without(7) != changed {
		t.Error("a change that changes nothing must return the same version")
	}
}

func TestASmallChangeOfALargeSetIsSmall(t *testing.T) {
	var s Set[element]
	for e := range element(50000) {
		s = s.With(e)
	}
	bytes := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.With(60000).Diff(s)
		}
	}).AllocedBytesPerOp()
	if bytes > 4096 {
		t.Errorf("one element more and its diff allocate %d bytes, want at most 4096", bytes)
	}
}

func TestASetBuiltAtOnceIsTheOneBuiltStepByStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Map(rapid.Uint16Range(0, 600), func(n uint16) element { return element(n) }), 0,
			800).Draw(t, "elements")
		var steps Set[element]
		for _, e := range list {
			steps = steps.With(e)
		}
		at := Of(list...)
		if a, b := sorted(at), sorted(steps); !slices.Equal(a, b) {
			t.Fatalf("elements\n got %v\nwant %v", a, b)
		}
		if a, b := shape(at.root), shape(steps.root); a != b {
			t.Fatalf("shape %s, want %s", a, b)
		}
	})
}

// shape writes how many elements each node has.
func shape(n *node[element]) string {
	if n == nil {
		return "-"
	}
	s := fmt.Sprint(n.count)
	if n.children != nil {
		for _, c := range n.children {
			s += "(" + shape(c) + ")"
		}
	}
	return s
}
