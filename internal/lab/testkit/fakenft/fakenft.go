// SPDX-License-Identifier: Apache-2.0

// Package fakenft is a kernel's nftables in memory, as far as the transactions
// of package nft need it. It refuses what the kernel refuses: what does not
// exist cannot be deleted or referred to, what is referred to cannot be
// deleted, and a transaction with one refused change changes nothing. It
// judges no packets.
package fakenft

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
)

// The kernel's answers.
var (
	ErrMissing = errors.New("no such object")          // ENOENT
	ErrExists  = errors.New("object exists")           // EEXIST
	ErrBusy    = errors.New("object is still in use")  // EBUSY
	ErrNoTable = errors.New("there is no such table")  // ENOENT
	ErrInvalid = errors.New("the kernel refuses this") // EINVAL
)

// Kernel is the state of one network namespace. The zero value has no table.
// It is used by one goroutine.
type Kernel struct {
	// ID is the name that its one table has.
	ID    nft.TableID
	table *table
}

type table struct {
	counters map[string]bool
	sets     map[string]*set
	chains   map[string]*chain
}

type set struct {
	like    nft.Set // without elements
	entries map[nft.Key]nft.Entry
}

type chain struct {
	base  *nft.Base
	rules []nft.Rule
}

// Commit applies the operations as one transaction.
func (k *Kernel) Commit(ops []nft.Op) error {
	now := k.table.clone()
	for i, op := range ops {
		if err := apply(&now, op); err != nil {
			return fmt.Errorf("operation %d, %s: %w", i, op, err)
		}
	}
	k.table = now
	return nil
}

func (t *table) clone() *table {
	if t == nil {
		return nil
	}
	c := newTable()
	for name := range t.counters {
		c.counters[name] = true
	}
	for name, s := range t.sets {
		entries := map[nft.Key]nft.Entry{}
		for key, e := range s.entries {
			entries[key] = e
		}
		c.sets[name] = &set{like: s.like, entries: entries}
	}
	for name, ch := range t.chains {
		c.chains[name] = &chain{base: ch.base, rules: slices.Clone(ch.rules)}
	}
	return c
}

func newTable() *table {
	return &table{counters: map[string]bool{}, sets: map[string]*set{}, chains: map[string]*chain{}}
}

func apply(t **table, op nft.Op) error {
	switch op.Kind {
	case nft.AddTable:
		if *t == nil {
			*t = newTable()
		}
		return nil
	case nft.DropCopy:
		return nil // it has no copies
	case nft.DeleteTable:
		if *t == nil {
			return ErrNoTable
		}
		*t = nil
		return nil
	}
	if *t == nil {
		return ErrNoTable
	}
	return (*t).apply(op)
}

func (t *table) apply(op nft.Op) error {
	switch op.Kind {
	case nft.AddCounter:
		t.counters[op.Counter] = true
		return nil
	case nft.AddSet:
		return t.addSet(op.Set)
	case nft.DeleteSet:
		return t.deleteSet(op.Set.Name)
	case nft.AddElements:
		return t.addElements(op.Set.Name, op.Entries)
	case nft.TrailElements, nft.DeleteElements:
		return t.deleteElements(op.Set.Name, op.Entries)
	case nft.ReplaceElements, nft.LeadElements, nft.SwapElements:
		return cmp.Or(t.deleteElements(op.Set.Name, op.Removed), t.addElements(op.Set.Name, op.Entries))
	case nft.AddChain:
		return t.addChain(op.Chain)
	case nft.FlushChain, nft.RetireChain:
		return t.flushChain(op.Chain.Name)
	case nft.DeleteChain:
		return t.deleteChain(op.Chain.Name)
	case nft.AddRules:
		return t.addRules(op.Chain)
	}
	return fmt.Errorf("%w: kind %d", ErrInvalid, op.Kind)
}

func (t *table) addSet(s *nft.Set) error {
	if t.sets[s.Name] != nil {
		return fmt.Errorf("%w: set %s", ErrExists, s.Name)
	}
	like := *s
	like.Elements, like.Ranges, like.Entries, like.Content = inet.Elements{}, nil, nil, nil
	t.sets[s.Name] = &set{like: like, entries: map[nft.Key]nft.Entry{}}
	return nil
}

func (t *table) deleteSet(name string) error {
	if t.sets[name] == nil {
		return fmt.Errorf("%w: set %s", ErrMissing, name)
	}
	for c, ch := range t.chains {
		for _, r := range ch.rules {
			if slices.Contains(setsOf(r), name) {
				return fmt.Errorf("%w: set %s, by chain %s", ErrBusy, name, c)
			}
		}
	}
	delete(t.sets, name)
	return nil
}

func (t *table) addElements(name string, list []nft.Entry) error {
	s := t.sets[name]
	if s == nil {
		return fmt.Errorf("%w: set %s", ErrMissing, name)
	}
	for _, e := range list {
		old, there := s.entries[e.Key]
		switch {
		case there && (old.Verdict != e.Verdict || old.To != e.To):
			return fmt.Errorf("%w: element %v of %s with another verdict or value", ErrExists, e.Key, name)
		case s.like.Map != (e.Verdict.Kind != nft.None), (s.like.Data != 0) != e.To.IsValid():
			return fmt.Errorf("%w: element %v of %s, verdict %v, value %v", ErrInvalid, e.Key, name, e.Verdict, e.To)
		case e.Verdict.Chain != "" && t.chains[e.Verdict.Chain] == nil:
			return fmt.Errorf("%w: chain %s, for an element of %s", ErrMissing, e.Verdict.Chain, name)
		case s.like.Interval && !there && s.overlaps(e.Key):
			return fmt.Errorf("%w: an interval that overlaps %v in %s", ErrExists, e.Key, name)
		case !there:
			s.entries[e.Key] = e
		}
	}
	return nil
}

func (s *set) overlaps(k nft.Key) bool {
	r := k.Range()
	for key := range s.entries {
		if o := key.Range(); r.Contains(o.First) || o.Contains(r.First) {
			return true
		}
	}
	return false
}

func (t *table) deleteElements(name string, list []nft.Entry) error {
	s := t.sets[name]
	if s == nil {
		return fmt.Errorf("%w: set %s", ErrMissing, name)
	}
	for _, e := range list {
		if _, there := s.entries[e.Key]; !there {
			return fmt.Errorf("%w: element %v of %s", ErrMissing, e.Key, name)
		}
		delete(s.entries, e.Key)
	}
	return nil
}

func (t *table) addChain(c *nft.Chain) error {
	if t.chains[c.Name] != nil {
		return fmt.Errorf("%w: chain %s", ErrExists, c.Name)
	}
	t.chains[c.Name] = &chain{base: c.Base}
	return nil
}

func (t *table) flushChain(name string) error {
	c := t.chains[name]
	if c == nil {
		return fmt.Errorf("%w: chain %s", ErrMissing, name)
	}
	c.rules = nil
	return nil
}

func (t *table) deleteChain(name string) error {
	if t.chains[name] == nil {
		return fmt.Errorf("%w: chain %s", ErrMissing, name)
	}
	for c, ch := range t.chains {
		for _, r := range ch.rules {
			if slices.Contains(chainsOf(r), name) {
				return fmt.Errorf("%w: chain %s, by chain %s", ErrBusy, name, c)
			}
		}
	}
	for s, v := range t.sets {
		for _, e := range v.entries {
			if e.Verdict.Chain == name {
				return fmt.Errorf("%w: chain %s, by an element of %s", ErrBusy, name, s)
			}
		}
	}
	delete(t.chains, name)
	return nil
}

func (t *table) addRules(c *nft.Chain) error {
	to := t.chains[c.Name]
	if to == nil {
		return fmt.Errorf("%w: chain %s", ErrMissing, c.Name)
	}
	for _, r := range c.Rules {
		if err := t.checkRule(r); err != nil {
			return fmt.Errorf("rule %q of %s: %w", r, c.Name, err)
		}
		to.rules = append(to.rules, r)
	}
	return nil
}

func (t *table) checkRule(r nft.Rule) error {
	for _, name := range chainsOf(r) {
		if c := t.chains[name]; c == nil {
			return fmt.Errorf("%w: chain %s", ErrMissing, name)
		} else if c.base != nil {
			return fmt.Errorf("%w: a jump to base chain %s", ErrInvalid, name)
		}
	}
	for _, name := range setsOf(r) {
		if t.sets[name] == nil {
			return fmt.Errorf("%w: set %s", ErrMissing, name)
		}
	}
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nft.Lookup:
			if to := t.sets[s.Set]; to.like.Map != s.Map {
				return fmt.Errorf("%w: set %s is no map, or a map", ErrInvalid, s.Set)
			}
		case nft.TranslateByMap:
			if t.sets[s.Map].like.Data == 0 {
				return fmt.Errorf("%w: set %s has no values", ErrInvalid, s.Map)
			}
		case nft.Count:
			if !t.counters[s.Counter] {
				return fmt.Errorf("%w: counter %s", ErrMissing, s.Counter)
			}
		}
	}
	return nil
}

func setsOf(r nft.Rule) []string {
	var list []string
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nft.Lookup:
			list = append(list, s.Set)
		case nft.TranslateByMap:
			list = append(list, s.Map)
		case nft.RememberSource:
			list = append(list, s.Map)
		}
	}
	return list
}

func chainsOf(r nft.Rule) []string {
	var list []string
	for _, s := range r.Statements {
		if v, ok := s.(nft.Verdict); ok && v.Chain != "" {
			list = append(list, v.Chain)
		}
	}
	return list
}

// Table returns what the kernel holds, nil for no table. Elements are in
// Entries, whichever way they were written.
func (k *Kernel) Table() *nft.Table {
	if k.table == nil {
		return nil
	}
	t := &nft.Table{TableID: k.ID}
	for name := range k.table.counters {
		t.Counters = append(t.Counters, name)
	}
	for _, s := range k.table.sets {
		c := s.like
		for _, e := range s.entries {
			c.Entries = append(c.Entries, e)
		}
		slices.SortFunc(c.Entries, func(a, b nft.Entry) int {
			return a.Compare(b)
		})
		t.Sets = append(t.Sets, &c)
	}
	for name, c := range k.table.chains {
		t.Chains = append(t.Chains, &nft.Chain{Name: name, Base: c.base, Rules: c.rules})
	}
	slices.Sort(t.Counters)
	slices.SortFunc(t.Sets, func(a, b *nft.Set) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Chains, func(a, b *nft.Chain) int {
		if (a.Base == nil) != (b.Base == nil) {
			return cmp.Compare(bit(a.Base == nil), bit(b.Base == nil))
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return t
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
