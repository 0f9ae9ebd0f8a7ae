// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

// OpKind is the kind of a change.
type OpKind uint8

// The kinds, in their order within a change: objects are added before the references to them, and deleted
// after these. The change may be committed in several transactions, split before any operation with
// elements.
const (
	DeleteTable OpKind = iota + 1
	AddTable
	AddCounter
	AddSet
	AddElements
	ReplaceElements // in a data map: delete Removed and add Entries, which have the same keys
	ChangeElements  // of a set that is Kept: add Removed and delete it, then add Entries
	AddChain
	FlushChain
	AddRules
	LeadElements  // of a map that is Behind: delete Removed and add Entries, some of which have the same keys
	SwapElements  // delete Removed, then add Entries
	TrailElements // of a map that is Behind: delete Entries
	RetireChain   // empty a chain that is no longer referenced
	DeleteElements
	DeleteSet // a map refers to chains
	DeleteChain
	DropCopy // delete the table's copy; none is no error
)

// Op is one change of the table.
type Op struct {
	Kind    OpKind
	Counter string
	Set     *Set
	Chain   *Chain
	// Entries are added by AddElements, ReplaceElements, LeadElements and SwapElements, and removed by
	// TrailElements and DeleteElements.
	Entries []Entry
	// Removed are the entries that ReplaceElements, LeadElements and SwapElements remove.
	Removed []Entry
}

// Diff returns the ordered changes from the actual to the desired table; none if they are equal. Nil means
// no table. If one of our names belongs to another kind of object, the table is replaced as a whole.
func Diff(actual, desired *Table) []Op {
	d := differ{actual: actual}
	if actual == nil || actual.Copied {
		d.add(Op{Kind: DropCopy})
	}
	if actual != nil && foreign(actual, desired) {
		d.add(Op{Kind: DeleteTable})
		actual = nil
	}
	if actual == nil {
		d.actual = &Table{}
		d.add(Op{Kind: AddTable})
	}
	d.counters(desired)
	d.sets(desired)
	d.chains(desired)
	slices.SortStableFunc(d.ops, func(a, b Op) int { return int(a.Kind) - int(b.Kind) })
	return d.ops
}

// foreign reports whether a set or chain with one of our names has another type, or whether the table is
// dormant.
func foreign(actual, desired *Table) bool {
	found := actual.Dormant
	walk(actual.Sets, desired.Sets, func(s *Set) string { return s.Name }, func(old, now *Set) {
		if old != nil && now != nil &&
			(old.Key != now.Key || old.Map != now.Map || old.Interval != now.Interval || old.Timeout != now.Timeout ||
				old.Data != now.Data || old.Dynamic != now.Dynamic) {
			found = true
		}
	})
	return found || otherBase(actual, desired) || otherBase(desired, actual)
}

// otherBase reports whether a base chain of one table differs in the other. There are few base chains and
// many other chains.
func otherBase(a, b *Table) bool {
	for _, c := range a.Chains {
		if c.Base == nil {
			continue
		}
		if o := b.Chain(c.Name); o != nil && !sameBase(c.Base, o.Base) {
			return true
		}
	}
	return false
}

func sameBase(a, b *Base) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

type differ struct {
	actual *Table
	ops    []Op
}

func (d *differ) add(op Op) { d.ops = append(d.ops, op) }

func (d *differ) counters(desired *Table) {
	for _, c := range desired.Counters {
		if !slices.Contains(d.actual.Counters, c) {
			d.add(Op{Kind: AddCounter, Counter: c})
		}
	}
}

func (d *differ) sets(desired *Table) {
	walk(d.actual.Sets, desired.Sets, func(s *Set) string { return s.Name }, func(old, now *Set) {
		switch {
		case now == nil:
			d.add(Op{Kind: DeleteSet, Set: old})
		case old == nil:
			d.add(Op{Kind: AddSet, Set: now})
			d.fill(now, now.all())
		case now.Kept:
		default:
			d.elements(old, now)
		}
	})
}

// late reports whether the elements of a set change together with the rules that packets traverse: elements
// of maps lead to chains.
func (s *Set) late() bool { return s.Map || s.Late }

// fill adds elements: to most sets early, since rules will refer to them.
func (d *differ) fill(s *Set, list []Entry) {
	switch {
	case len(list) == 0:
	case s.Behind:
		d.behind(s, list, nil, nil)
	case s.late():
		d.add(Op{Kind: SwapElements, Set: s, Entries: list})
	default:
		d.add(Op{Kind: AddElements, Set: s, Entries: list})
	}
}

func (d *differ) elements(old, now *Set) {
	added, removed := now.Elements.Diff(old.Elements)
	more, less, replaced, by := diffMembers(old, now)
	switch {
	case now.Behind:
		d.behind(now, append(by, more...), replaced, less)
		return
	case len(by) > 0:
		d.add(Op{Kind: ReplaceElements, Set: now, Entries: by, Removed: replaced})
	}
	more, less = append(more, entriesOf(added)...), append(less, entriesOf(removed)...)
	wider, narrower := diffRanges(old.Ranges, now.Ranges)
	more, less = append(more, rangeEntries(wider)...), append(less, rangeEntries(narrower)...)
	// Delete before add if a new element may conflict with a deleted one: in maps, in interval sets, and if
	// only a comment changes.
	clash := now.late() || now.Data == 0 && len(less) > 0 && (now.Interval || len(old.Entries) > 0)
	if clash && len(more)+len(less) > 0 {
		d.add(Op{Kind: SwapElements, Set: now, Entries: more, Removed: less})
		return
	}
	d.fill(now, more)
	if len(less) > 0 {
		d.add(Op{Kind: DeleteElements, Set: now, Entries: less})
	}
}

// behind changes a map that is Behind.
func (d *differ) behind(s *Set, added, replaced, removed []Entry) {
	if len(added) > 0 {
		d.add(Op{Kind: LeadElements, Set: s, Entries: added, Removed: replaced})
	}
	if len(removed) > 0 {
		d.add(Op{Kind: TrailElements, Set: s, Entries: removed})
	}
}

func (s *Set) all() []Entry {
	return slices.Concat(entriesOf(inet.Sorted(s.Elements)), rangeEntries(s.Ranges), s.members())
}

func rangeEntries(list []inet.Range) []Entry {
	entries := make([]Entry, len(list))
	for i, r := range list {
		entries[i] = Entry{Key: rangeKey(r)}
	}
	return entries
}

// diffRanges compares two sorted lists of ranges.
func diffRanges(old, now []inet.Range) (added, removed []inet.Range) {
	if immutable.Same(old, now) {
		return nil, nil
	}
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].Compare(now[0]) < 0:
			removed, old = append(removed, old[0]), old[1:]
		case len(old) == 0 || old[0] != now[0]:
			added, now = append(added, now[0]), now[1:]
		default:
			old, now = old[1:], now[1:]
		}
	}
	return added, removed
}

func entriesOf(list []inet.Element) []Entry {
	if len(list) == 0 {
		return nil
	}
	entries := make([]Entry, len(list)) // an entry has 152 bytes: growing the slice would need as much again
	for i, e := range list {
		entries[i] = Entry{Key: Key{Element: e}}
	}
	return entries
}

// diffEntries compares keys, verdicts, values and comments: a comment names the pod, or holds a value for a later
// process.
func diffEntries(old, now []Entry) (added, removed []Entry) {
	if immutable.Same(old, now) || slices.Equal(old, now) {
		return nil, nil // by far the most common case
	}
	was := make(map[Key]Entry, len(old))
	for _, e := range old {
		was[e.Key] = e
	}
	stays := make(map[Key]bool, len(now))
	for _, e := range now {
		if o, ok := was[e.Key]; ok && o.Verdict == e.Verdict && o.To == e.To && Clip(o.Comment) == Clip(e.Comment) {
			stays[e.Key] = true
		} else {
			added = append(added, e)
		}
	}
	for _, e := range old {
		if !stays[e.Key] {
			removed = append(removed, e)
		}
	}
	return added, removed
}

func (d *differ) chains(desired *Table) {
	old, now := slices.Clone(d.actual.Chains), slices.Clone(desired.Chains)
	byName := func(a, b *Chain) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(old, byName)
	slices.SortFunc(now, byName)
	walk(old, now, func(c *Chain) string { return c.Name }, func(old, now *Chain) {
		switch {
		case now == nil:
			d.add(Op{Kind: RetireChain, Chain: old})
			d.add(Op{Kind: DeleteChain, Chain: old})
		case old == nil:
			d.add(Op{Kind: AddChain, Chain: now})
			d.add(Op{Kind: AddRules, Chain: now})
		case !sameRules(old.Rules, now.Rules):
			d.add(Op{Kind: FlushChain, Chain: now})
			d.add(Op{Kind: AddRules, Chain: now})
		}
	})
}

func sameRules(a, b []Rule) bool {
	return immutable.Same(a, b) || slices.EqualFunc(a, b, Rule.Equal)
}

// Equal reports whether both rules do the same in the kernel. Rendered rules are compared by their
// statements, which costs a hundredth of encoding them. Rules read from the kernel have no statements.
func (a Rule) Equal(b Rule) bool {
	if a.raw == "" && b.raw == "" && a.Family == b.Family && a.Comment == b.Comment &&
		slices.Equal(a.Statements, b.Statements) {
		return true
	}
	return a.fingerprint() == b.fingerprint()
}

// walk calls f for each name in two lists sorted by name, with nil for a list without the name.
func walk[T any](old, now []*T, name func(*T) string, f func(old, now *T)) {
	for len(old) > 0 || len(now) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = strings.Compare(name(old[0]), name(now[0]))
		}
		var a, b *T
		if order <= 0 {
			a, old = old[0], old[1:]
		}
		if order >= 0 {
			b, now = now[0], now[1:]
		}
		f(a, b)
	}
}

// Elements returns the number of elements in the operation.
func (o Op) Elements() int { return len(o.Entries) + len(o.Removed) }

// String returns the change in nft syntax, without listing elements.
func (o Op) String() string {
	switch o.Kind {
	case DeleteTable:
		return "delete table"
	case AddTable:
		return "add table"
	case AddCounter:
		return "add counter " + o.Counter
	case AddSet:
		return "add set " + o.Set.Name
	case AddElements:
		return fmt.Sprintf("add %d elements to %s", len(o.Entries), o.Set.Name)
	case AddChain:
		return "add chain " + o.Chain.Name
	case FlushChain, RetireChain:
		return "flush chain " + o.Chain.Name
	case AddRules:
		return fmt.Sprintf("add %d rules to %s", len(o.Chain.Rules), o.Chain.Name)
	case ReplaceElements:
		return fmt.Sprintf("replace %d elements of %s", len(o.Entries), o.Set.Name)
	case LeadElements:
		return fmt.Sprintf("delete %d and add %d elements in %s, first", len(o.Removed), len(o.Entries), o.Set.Name)
	case TrailElements:
		return fmt.Sprintf("delete %d elements of %s, last", len(o.Entries), o.Set.Name)
	case ChangeElements:
		return fmt.Sprintf("add %d elements to %s, delete %d", len(o.Entries), o.Set.Name, len(o.Removed))
	case SwapElements:
		return fmt.Sprintf("delete %d and add %d elements in %s", len(o.Removed), len(o.Entries), o.Set.Name)
	case DeleteElements:
		return fmt.Sprintf("delete %d elements of %s", len(o.Entries), o.Set.Name)
	case DeleteChain:
		return "delete chain " + o.Chain.Name
	case DropCopy:
		return "delete the table's copy"
	}
	return "delete set " + o.Set.Name
}
