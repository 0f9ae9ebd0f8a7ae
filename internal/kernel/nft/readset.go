// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/netpol/program"
)

func (c *Conn) readSets(ctx context.Context, t *Table) error {
	return c.readSome(ctx, t, func(string) bool { return true })
}

// readSome reads the sets with names that are wanted.
func (c *Conn) readSome(ctx context.Context, t *Table, wanted func(name string) bool) error {
	sets, err := c.nl.GetSets(c.table)
	if err != nil {
		return err
	}
	counts, err := c.lister.counts(byte(c.table.Family))
	if err != nil {
		return err
	}
	for _, k := range sets {
		if k.Anonymous || !wanted(k.Name) {
			continue // an anonymous one is part of a rule that is not ours, and goes with it
		}
		s := &Set{Name: k.Name, Map: k.IsMap, Interval: k.Interval, Comment: k.Comment, Timeout: k.Timeout}
		if s.Key, _ = keyType(k.KeyType); s.Key != 0 { // else foreign: Diff deletes it
			if err := c.readSet(ctx, s, k, counts); err != nil {
				return fmt.Errorf("set %s: %w", k.Name, err)
			}
		}
		t.Sets = append(t.Sets, s)
	}
	slices.SortFunc(t.Sets, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

func (c *Conn) readSet(ctx context.Context, s *Set, k *nftables.Set, counts map[string]int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.plain() {
		count, known := counts[s.Name]
		if !known {
			count = -1
		}
		return c.list(ctx, s, count)
	}
	list, err := c.elements(k)
	if err != nil {
		return err
	}
	return s.take(list)
}

// plain reports whether the set has members of the program, and can be large.
func (s *Set) plain() bool {
	return s.Interval || !s.Map && slices.Contains([]KeyType{Addr4, Addr6, Addr4Port, Addr6Port}, s.Key)
}

// A listing may be incomplete: the kernel resizes a large hash in the background
// (seen on 6.18 right after thousands of insertions). A listing of several messages
// then meets another order in the next one, and it skips as many elements as it has
// listed: some come twice, as many are missing, and the number is right. So a set
// that is not small is listed until no element comes twice and there are as many
// as the kernel counts, or, with a kernel that does not say, as many as before.
// Two listings of one resize may miss the same elements, so the next one waits.
const (
	smallListing = 512
	listings     = 10
	resizing     = 5 * time.Millisecond // the pause, which grows with each try
)

// list reads a plain set. count is the kernel's number of elements, -1 if it is
// not known.
func (c *Conn) list(ctx context.Context, s *Set, count int) error {
	before := -1
	for try := range listings {
		l := listing{key: s.Key}
		if err := c.lister.elements(byte(c.table.Family), s.Name, l.add); err != nil {
			return err
		}
		n := len(l.starts) + len(l.ends)
		settled := n == before && (count < 0 || try == listings-1)
		if (n == count || settled || n <= smallListing && count < 0) && l.into(s) {
			return nil
		}
		before = n
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * resizing):
		}
	}
	return fmt.Errorf("the listing did not settle in %d tries", listings)
}

// listing collects the elements of a plain set.
type listing struct {
	key     KeyType
	starts  []program.Element // of intervals; else all
	ends    []program.Element
	foreign bool // there is an element that we never write
}

func (l *listing) add(key []byte, end bool) {
	k, ok := l.key.parse(key)
	switch {
	case !ok:
		l.foreign = true
		l.starts = append(l.starts, program.Element{}) // it counts
	case end:
		l.ends = append(l.ends, k.Element)
	default:
		l.starts = append(l.starts, k.Element)
	}
}

// into makes the set what was listed. whole is false if an element came twice.
func (l *listing) into(s *Set) (whole bool) {
	if s.Interval {
		return l.intoRanges(s)
	}
	if l.foreign || len(l.ends) > 0 {
		s.disown()
		return true
	}
	n := len(l.starts)
	s.Elements = immutable.Of(l.starts...)
	return s.Elements.Len() == n
}

// intoRanges pairs starts and ends. Intervals do not overlap, so that in order
// each end belongs to the start before it; only the last interval may have none.
func (l *listing) intoRanges(s *Set) (whole bool) {
	slices.SortFunc(l.starts, program.Element.Compare)
	slices.SortFunc(l.ends, program.Element.Compare)
	n, m := len(l.starts), len(l.ends)
	l.starts, l.ends = slices.Compact(l.starts), slices.Compact(l.ends)
	whole = len(l.starts) == n && len(l.ends) == m
	if len(l.starts) > 0 && len(l.ends) > 0 && l.ends[0] == s.Key.first() {
		l.ends = l.ends[1:] // the nft program begins every interval set with an end
	}
	ranges := make([]program.Range, 0, n)
	for i, first := range l.starts {
		last := s.Key.last()
		if i < len(l.ends) {
			last = s.Key.previous(l.ends[i])
		}
		open := i >= len(l.ends) && i < len(l.starts)-1
		overlaps := i+1 < len(l.starts) && last.Compare(l.starts[i+1]) >= 0
		l.foreign = l.foreign || open || overlaps || last.Compare(first) < 0
		ranges = append(ranges, program.Range{First: first, Last: last})
	}
	if l.foreign || len(l.ends) > len(l.starts) {
		s.disown()
		return whole
	}
	s.Ranges = ranges
	return whole
}

// elements reads one of the other sets, which are small, but those of what was
// cut.
func (c *Conn) elements(k *nftables.Set) ([]nftables.SetElement, error) {
	list, err := c.nl.GetSetElements(k)
	for try := 0; err == nil && len(list) > smallListing; try++ {
		before := len(list)
		if list, err = c.nl.GetSetElements(k); err == nil && len(list) == before && !repeats(list) {
			break
		}
		if try == listings {
			return nil, fmt.Errorf("the listing did not settle in %d tries", listings)
		}
	}
	return list, err
}

// repeats reports whether an element comes twice.
func repeats(list []nftables.SetElement) bool {
	seen := make(map[string]bool, len(list))
	for _, e := range list {
		key := string(e.Key)
		if seen[key] {
			return true
		}
		seen[key] = true
	}
	return false
}

// take turns the kernel's elements into ours. A set with an element that we
// never write is not ours any more.
func (s *Set) take(list []nftables.SetElement) error {
	for _, k := range list {
		key, ok := s.Key.parse(k.Key)
		if !ok {
			s.disown()
			return nil
		}
		e := Entry{Key: key, Comment: k.Comment}
		if s.Map {
			var err error
			if e.Verdict, err = verdictOf(k.Val); err != nil {
				return err
			}
		}
		s.Entries = append(s.Entries, e)
	}
	slices.SortFunc(s.Entries, compareEntries)
	return nil
}

// disown says that the set is not one of ours any more: its missing type makes
// Diff replace the table.
func (s *Set) disown() { s.Key, s.Elements, s.Ranges, s.Entries = 0, program.Elements{}, nil, nil }
