// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// ofSize returns a policy of a size.
func ofSize(namespace, name string, size int) *Policy {
	p := &Policy{Key: Key{Namespace: namespace, Name: name}, Version: "1", Subject: Everything(), IsolatesIngress: true}
	blocks := Peers{}
	for p.Size()+1+len(blocks.List) < size {
		block := &IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(len(blocks.List) >> 8),
			byte(len(blocks.List))}), 24)}
		blocks.List = append(blocks.List, Peer{Block: block})
	}
	p.Ingress = []Rule{{Peers: blocks, Ports: Ports{Any: true}}}
	return p
}

// rulesOf returns the names of the policies that have rules, sorted.
func rulesOf(s *Store) string {
	var names []string
	for _, p := range s.Snapshot().Policies {
		if len(p.Ingress) > 0 {
			names = append(names, p.Key.Name)
		} else if !p.IsolatesIngress || !p.Subject.Valid() {
			names = append(names, p.Key.Name+" is open")
		}
	}
	return strings.Join(names, " ")
}

func TestTheLargestPoliciesOfANamespaceAreLeftOut(t *testing.T) {
	half := MaxNamespaceEntries / 2
	s := NewStore()
	s.Update(func(tx *Tx) {
		tx.SetPolicy(ofSize("a", "large", half+1))
		tx.SetPolicy(ofSize("a", "small", 100))
		tx.SetPolicy(ofSize("b", "other", half+1))
	})
	if got := rulesOf(s); got != "large small other" {
		t.Fatalf("within the budget %q have rules", got)
	}
	s.Update(func(tx *Tx) { tx.SetPolicy(ofSize("a", "medium", half)) })
	if got := rulesOf(s); got != "medium small other" {
		t.Errorf("above the budget %q have rules", got)
	}
	d := s.Take().Diagnostics
	if len(d) != 1 || d[0].Object.Name != "a" || !strings.Contains(d[0].Message, "large") || d[0].Cure == "" {
		t.Errorf("diagnostics %v", d)
	}
	s.Update(func(tx *Tx) { tx.DeletePolicy(Key{"a", "medium"}) })
	if got := fmt.Sprint(s.Wanted()); got != "[a/large]" {
		t.Fatalf("wanted %s", got)
	}
	if got := rulesOf(s); got != "small other" {
		t.Errorf("before it was read again %q have rules", got)
	}
	stale := ofSize("a", "large", 10)
	stale.Version = "0"
	s.Update(func(tx *Tx) { tx.Supply(stale) })
	if got := rulesOf(s); got != "small other" {
		t.Errorf("an older version was taken: %q have rules", got)
	}
	s.Update(func(tx *Tx) { tx.Supply(ofSize("a", "large", half+1)) })
	if got := rulesOf(s); got != "large small other" || len(s.Take().Diagnostics) != 0 {
		t.Errorf("after it was read again %q have rules", got)
	}
}

// However policies come and go, what has rules follows from what there is: the
// store that was told everything in steps, with what it wants supplied, equals one
// that gets the end at once. A trimmed list is as good as a whole one.
func TestBudgetsFollowFromTheContentAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := map[Key]*Policy{}
		s := NewStore()
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			k := Key{"a", rapid.SampledFrom([]string{"p", "q", "r", "s"}).Draw(t, "name")}
			if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
				delete(now, k)
				s.Update(func(tx *Tx) { tx.DeletePolicy(k) })
			} else {
				p := ofSize(k.Namespace, k.Name, rapid.SampledFrom([]int{20, MaxNamespaceEntries / 3,
					MaxNamespaceEntries/2 + 1, MaxNamespaceEntries}).Draw(t, "size"))
				p.Version = fmt.Sprint(len(now))
				now[k] = p
				s.Update(func(tx *Tx) { tx.SetPolicy(p) })
			}
			for _, w := range s.Wanted() {
				if p := now[w]; p != nil {
					s.Update(func(tx *Tx) { tx.Supply(p) })
				}
			}
		}
		var list []*Policy
		for _, p := range now {
			list = append(list, p)
		}
		slices.SortFunc(list, func(a, b *Policy) int { return a.Key.Compare(b.Key) })
		once, trimmed := NewStore(), NewStore()
		once.Update(func(tx *Tx) { tx.ReplacePolicies(list) })
		short := slices.Clone(list)
		Trim(short)
		trimmed.Update(func(tx *Tx) { tx.ReplacePolicies(short) })
		if a, b, c := rulesOf(s), rulesOf(once), rulesOf(trimmed); a != b || a != c {
			t.Fatalf("in steps %q have rules, at once %q, trimmed %q", a, b, c)
		}
		if a, b := fmt.Sprint(s.Take().Diagnostics), fmt.Sprint(once.Take().Diagnostics); a != b {
			t.Fatalf("in steps the diagnostics are %s, at once %s", a, b)
		}
	})
}

// The prefix that fits moves with each change; it equals the one of a ranking that is made anew.
func TestARankingFollowsFromWhatIsInIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SampledFrom([]int{9, 5_000, MaxNamespaceEntries / 3, MaxNamespaceEntries / 2,
			MaxNamespaceEntries/2 + 1, MaxNamespaceEntries})
		r, policies := ranking{}, map[Key]written{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			k := Key{"a", rapid.SampledFrom(strings.Split("pqrstuvwxyz", "")).Draw(t, "name")}
			if w, known := policies[k]; known {
				r.remove(ranked{w.size, k})
				delete(policies, k)
			}
			if rapid.IntRange(0, 2).Draw(t, "delete") > 0 {
				policies[k] = written{size: sizes.Draw(t, "size")}
				r.insert(ranked{policies[k].size, k})
			}
			before := map[ranked]bool{}
			for _, x := range r.list {
				before[x] = r.fits(x)
			}
			told := map[ranked]bool{}
			for _, x := range r.settle() {
				told[x] = true
			}
			if again := newRanking(policies); !slices.Equal(r.list, again.list) || r.fit != again.fit ||
				r.sum != again.sum {
				t.Fatalf("in steps %+v, at once %+v", r, again)
			}
			sum := 0
			for _, x := range r.list {
				sum += x.size
				if r.fits(x) != (sum <= MaxNamespaceEntries) {
					t.Fatalf("%v fits is %t, with %d entries before it and of it", x, r.fits(x), sum)
				}
				if told[x] != (before[x] != r.fits(x)) {
					t.Fatalf("%v was moved over is %t; it fitted %t, now %t", x, told[x], before[x], r.fits(x))
				}
			}
		}
	})
}

// A change in a namespace above its budget does not look at all its policies.
func TestAChangeAboveTheBudgetDoesNotGrowWithTheNamespace(t *testing.T) {
	cost := func(policies int) uint64 {
		s := NewStore()
		var list []*Policy
		for i := range policies {
			list = append(list, ofSize("a", fmt.Sprint("p", i), 2*MaxNamespaceEntries/policies))
		}
		s.Update(func(tx *Tx) { tx.ReplacePolicies(list) })
		small, large := ofSize("a", "edited", 20), ofSize("a", "edited", 40)
		edit := func(n int) {
			for range n {
				s.Update(func(tx *Tx) { tx.SetPolicy(small) })
				s.Update(func(tx *Tx) { tx.SetPolicy(large) })
			}
		}
		edit(2)
		const edits = 50
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		edit(edits)
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / (2 * edits)
	}
	few, many := cost(100), cost(5_000)
	t.Logf("a change allocates %d B beside 100 policies, %d B beside 5,000", few, many)
	if many > 4*few+4096 {
		t.Errorf("a change allocates %d B beside 100 policies, %d B beside 5,000", few, many)
	}
}
