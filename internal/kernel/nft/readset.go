// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

func (c *Conn) readSets(ctx context.Context, t *Table) (err error) {
	t.Sets, err = c.ReadSets(ctx, func(string) bool { return true })
	return err
}

// ReadSets returns the sets with wanted names, sorted by name. A set that is not ours has key type 0 and no
// elements.
func (c *Conn) ReadSets(ctx context.Context, wanted func(name string) bool) (list []*Set, err error) {
	sets, err := c.nl.GetSets(c.table)
	if err != nil {
		return nil, err
	}
	counts, err := c.lister.counts(c.table)
	if err != nil {
		return nil, err
	}
	for _, k := range sets {
		if k.Anonymous || !wanted(k.Name) {
			continue // an anonymous set belongs to a foreign rule, and is deleted with it
		}
		s := setOf(k)
		if s.Key != 0 { // else foreign: Diff deletes it
			if err := c.readSet(ctx, s, k, counts); err != nil {
				return nil, fmt.Errorf("set %s: %w", k.Name, err)
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// setOf returns the description of a set; its key type is 0 if it is not one of ours.
func setOf(k *nftables.Set) *Set {
	s := &Set{Name: k.Name, Interval: k.Interval, Comment: k.Comment, Timeout: k.Timeout,
		Dynamic: k.Dynamic && k.HasTimeout && k.Timeout == 0}
	if s.Dynamic || s.Timeout > 0 {
		s.Size = k.Size
	}
	s.Key, _ = keyType(k.KeyType)
	if verdict := nftables.TypeVerdict; k.IsMap && k.DataType.GetNFTMagic() == verdict.GetNFTMagic() {
		s.Map = true
	} else if k.IsMap {
		var known bool
		if s.Data, known = keyType(k.DataType); !known {
			s.Key = 0
		}
	}
	return s
}

// Fill reads the members of a small set, or of one that is Kept, into the value that describes it. found is
// false if the kernel has no such set.
func (c *Conn) Fill(s *Set) (found bool, err error) {
	list, err := c.elements(c.set(s))
	if IsMissing(err) {
		return false, nil
	}
	if err == nil {
		err = s.take(list)
	}
	if err != nil {
		return true, fmt.Errorf("reading set %s: %w", s.Name, err)
	}
	return true, nil
}

// Members lists a map that is Dynamic, once, in no order. It changes while it is listed, so a member may be
// missing or come twice. found is false if the kernel has no such map.
func (c *Conn) Members(s *Set) (list []Entry, found bool, err error) {
	l := mapListing{set: s, chains: map[string]string{}}
	err = errors.Join(c.lister.elements(c.table, s.Name, l.add), l.err)
	switch {
	case IsMissing(err):
		return nil, false, nil
	case err == nil && l.foreign:
		err = errors.New("there are elements of another kind")
	}
	if err != nil {
		return nil, true, fmt.Errorf("listing map %s: %w", s.Name, err)
	}
	return l.entries, true, nil
}

func (c *Conn) readSet(ctx context.Context, s *Set, k *nftables.Set, counts map[string]int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.Dynamic || s.rates() {
		return nil // its members come and go with packets: no listing would settle
	}
	count, known := counts[s.Name]
	if !known {
		count = -1
	}
	if s.Plain() {
		return c.list(ctx, s, count)
	}
	if s.large() {
		return c.listMap(ctx, s, count)
	}
	list, err := c.elements(k)
	if err != nil {
		return err
	}
	return s.take(list)
}

// rates reports whether the set is one of rates by address, which rules fill for a time. Diff keeps its
// members, whatever they are.
func (s *Set) rates() bool {
	return s.Timeout > 0 && slices.Contains([]KeyType{Addr4, Addr6, Pair4, Pair6}, s.Key)
}

// Plain reports whether the members are in Elements or Ranges, which may be large.
func (s *Set) Plain() bool {
	return s.Interval || !s.Map && s.Data == 0 && slices.Contains([]KeyType{Addr4, Addr6, Addr4Port, Addr6Port}, s.Key)
}

// large reports whether the set is a map that may be large, whose elements have no comments.
func (s *Set) large() bool {
	return slices.Contains([]KeyType{Front4, Front6, Slot4, Slot6, PortSlot}, s.Key) && (s.Map || s.Data != 0)
}

// A listing may be incomplete: the kernel resizes a large hash in the background (seen on 6.18 right after
// thousands of insertions). A listing of several messages then finds another order in its next message and
// skips as many elements as it has listed: some appear twice, equally many are missing, and the total is
// right. So a large set is listed until no element appears twice and the total matches the kernel's count,
// or, if the kernel reports none, the previous total. Two listings during one resize may miss the same
// elements, so there is a pause before the next one.
const (
	smallListing = 512
	listings     = 10
	resizing     = 5 * time.Millisecond // the pause, which grows with each try
)

// list reads a plain set. count is the kernel's number of elements, or -1 if unknown.
func (c *Conn) list(ctx context.Context, s *Set, count int) error {
	return settle(ctx, count, s.Interval, func() (int, func() bool, error) {
		l := listing{key: s.Key}
		err := c.lister.elements(c.table, s.Name, l.add)
		return len(l.starts) + len(l.ends), func() bool { return l.into(s) }, err
	})
}

// listMap reads a map that may be large.
func (c *Conn) listMap(ctx context.Context, s *Set, count int) error {
	return settle(ctx, count, false, func() (int, func() bool, error) {
		l := mapListing{set: s, chains: map[string]string{}}
		err := c.lister.elements(c.table, s.Name, l.add)
		return len(l.entries), l.into, errors.Join(err, l.err)
	})
}

// counted reports whether the number of listed elements is what the kernel counts. Of intervals it lists the
// beginnings and the ends, and since it counts elements at all it counts a pair of them as one.
func counted(n, count int, intervals bool) bool { return n == count || intervals && n/2 == count }

// settle lists until a listing is whole. list returns the number of listed elements, and what stores them
// and reports whether none appeared twice.
func settle(ctx context.Context, count int, intervals bool,
	list func() (n int, into func() bool, err error)) error {
	before := -1
	for try := range listings {
		n, into, err := list()
		if err != nil {
			return err
		}
		settled := n == before && (count < 0 || try == listings-1)
		if (counted(n, count, intervals) || settled || n <= smallListing && count < 0) && into() {
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

// mapListing collects the elements of a map.
type mapListing struct {
	set     *Set
	entries []Entry
	chains  map[string]string // one string for each name
	foreign bool
	err     error
}

func (l *mapListing) add(key, value []byte, end bool) {
	k, ok := l.set.Key.parse(key)
	e := Entry{Key: k}
	if err := l.set.value(&e, value); err != nil {
		l.err = err
	}
	if name, known := l.chains[e.Verdict.Chain]; known {
		e.Verdict.Chain = name
	} else {
		l.chains[e.Verdict.Chain] = e.Verdict.Chain
	}
	l.foreign = l.foreign || !ok || end || l.set.Data != 0 && !e.To.IsValid()
	l.entries = append(l.entries, e)
}

// into stores the listing in the set. whole is false if a key appeared twice.
func (l *mapListing) into() (whole bool) {
	if l.foreign {
		l.set.disown()
		return true
	}
	slices.SortFunc(l.entries, Entry.Compare)
	for i := 1; i < len(l.entries); i++ {
		if l.entries[i-1].Key == l.entries[i].Key {
			return false
		}
	}
	l.set.Entries = l.entries
	return true
}

// value decodes the value of a map's element. One of another length is none.
func (s *Set) value(e *Entry, b []byte) (err error) {
	switch {
	case s.Map:
		e.Verdict, err = verdictOf(b)
	case s.Data != 0:
		if to, ok := s.Data.parse(b); ok {
			e.To = netip.AddrPortFrom(to.Addr, to.Port)
		}
	}
	return err
}

// listing collects the elements of a plain set.
type listing struct {
	key     KeyType
	starts  []inet.Element // of intervals; otherwise all elements
	ends    []inet.Element
	foreign bool // there is an element that we never write
}

func (l *listing) add(key, _ []byte, end bool) {
	k, ok := l.key.parse(key)
	switch {
	case !ok:
		l.foreign = true
		l.starts = append(l.starts, inet.Element{}) // counted
	case end:
		l.ends = append(l.ends, k.Element)
	default:
		l.starts = append(l.starts, k.Element)
	}
}

// into stores the listing in the set. whole is false if an element appeared twice.
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

// intoRanges pairs starts and ends. Intervals do not overlap, so in sorted order each end belongs to the
// start before it; only the last interval may lack an end.
func (l *listing) intoRanges(s *Set) (whole bool) {
	slices.SortFunc(l.starts, inet.Element.Compare)
	slices.SortFunc(l.ends, inet.Element.Compare)
	n, m := len(l.starts), len(l.ends)
	l.starts, l.ends = slices.Compact(l.starts), slices.Compact(l.ends)
	whole = len(l.starts) == n && len(l.ends) == m
	if len(l.starts) > 0 && len(l.ends) > 0 && l.ends[0] == s.Key.first() {
		l.ends = l.ends[1:] // the nft program begins every interval set with an end
	}
	ranges := make([]inet.Range, 0, n)
	for i, first := range l.starts {
		last := s.Key.last()
		if i < len(l.ends) {
			last = s.Key.previous(l.ends[i])
		}
		open := i >= len(l.ends) && i < len(l.starts)-1
		overlaps := i+1 < len(l.starts) && last.Compare(l.starts[i+1]) >= 0
		l.foreign = l.foreign || open || overlaps || last.Compare(first) < 0
		ranges = append(ranges, inet.Range{First: first, Last: last})
	}
	if l.foreign || len(l.ends) > len(l.starts) {
		s.disown()
		return whole
	}
	s.Ranges = ranges
	return whole
}

// elements reads one of the other sets, which are small unless they are Kept.
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

// repeats reports whether an element appears twice.
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

// take converts the kernel's elements. A set with an element that we never write is treated as foreign.
func (s *Set) take(list []nftables.SetElement) error {
	for _, k := range list {
		key, ok := s.Key.parse(k.Key)
		if !ok {
			s.disown()
			return nil
		}
		e := Entry{Key: key, Comment: k.Comment}
		if err := s.value(&e, k.Val); err != nil {
			return err
		}
		if s.Data != 0 && !e.To.IsValid() {
			s.disown()
			return nil
		}
		s.Entries = append(s.Entries, e)
	}
	slices.SortFunc(s.Entries, Entry.Compare)
	return nil
}

// disown marks the set as foreign: its missing type makes Diff replace the table.
func (s *Set) disown() { s.Key, s.Elements, s.Ranges, s.Entries = 0, inet.Elements{}, nil, nil }
