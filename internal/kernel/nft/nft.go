// SPDX-License-Identifier: Apache-2.0

// Package nft drives nftables. Table is the content of a table as a value, in the statements that our
// rulesets use. Diff turns two states of a table into an ordered transaction, and Table.String prints one
// in nft syntax; both are pure. Conn reads a table back and commits transactions, over netlink and without
// running other programs; Monitor reports changes.
//
// It knows no policy: the rulesets define the content of tables; package ruleset is one of them. It reads
// other programs' tables only to find chains that run before ours or drop invalid packets (Survey).
package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
)

// Family is the family of a table.
type Family uint8

// The families. Tables of the zero value see packets of both IP families.
const (
	FamilyINet Family = iota
	FamilyIP
	FamilyIP6
	FamilyBridge
)

// FamilyFor returns the family of tables that see only packets of one IP family.
func FamilyFor(f inet.Family) Family {
	if f == inet.IPv6 {
		return FamilyIP6
	}
	return FamilyIP
}

// String returns the family's name in nft syntax.
func (f Family) String() string {
	return [...]string{FamilyINet: "inet", FamilyIP: "ip", FamilyIP6: "ip6", FamilyBridge: "bridge"}[f]
}

// TableID names a table.
type TableID struct {
	Family Family
	Name   string
}

// String returns the table's name as in nft commands.
func (t TableID) String() string { return t.Family.String() + " " + t.Name }

// Table is the content of a table, desired or actual. It is immutable once
// published.
type Table struct {
	TableID
	Counters []string // named counters, sorted
	Sets     []*Set   // sorted by name
	Chains   []*Chain // base chains first, then sorted by name
	// Dormant is true for an actual table whose chains were switched off.
	Dormant bool
	// Copied is true for an actual table beside which a copy is left of a replacement that was interrupted.
	Copied bool
}

// KeyType is the type of a set's keys.
type KeyType uint8

// The key types that the ruleset uses.
const (
	Addr4 KeyType = iota + 1
	Addr6
	Pair4 // source . destination
	Pair6
	Addr4Port // destination . port
	Addr6Port
	ProtocolPort
	Port // destination port
	Interface
	InterfaceAddr4 // interface . source
	InterfaceAddr6
	Flow4 // source . port . destination . port
	Flow6
	Hardware
	InterfaceHardware      // interface . hardware source
	InterfaceHardwareAddr4 // interface . hardware source . source
	InterfaceHardwareAddr6
	Front4 // destination . protocol . port
	Front6
	Slot4 // destination . protocol . port . number
	Slot6
	PortSlot // protocol . port . number
)

// Set is a named set; with Map it is a verdict map, with Data a data map.
type Set struct {
	Name string
	Key  KeyType
	Map  bool
	// Data is the type of a data map's values: Addr4Port or Addr6Port.
	Data     KeyType
	Interval bool
	Comment  string
	// Timeout is the time after which the kernel deletes an unused element; 0 means never.
	Timeout time.Duration
	// Dynamic is true for a data map that rules fill, whose elements expire at a time that the rule gives.
	// Reading a table leaves them out, see Members; a desired map is Kept, too. Size is how many it can have:
	// it is used when the map is added, and a change of it has no effect.
	Dynamic bool
	Size    uint32
	// Kept is true for a desired set whose elements are not part of the desired table: Diff leaves them as
	// they are, and ChangeElements adds and removes them.
	Kept bool
	// Late is true for a desired set whose elements change together with those of maps, not before them.
	Late bool
	// Behind is true for a verdict map in which rules look something up after they were reached through
	// another one: new elements come before that map's, and elements that go leave after them.
	Behind bool
	// Elements are the members of a set that may be large; shared with the producer.
	Elements inet.Elements
	// Ranges are the members if Interval is set; also shared.
	Ranges []inet.Range
	// Entries are the members of maps and of small sets, sorted by key. Elements is
	// then empty.
	Entries []Entry
	// Content is the members of a set or map that may be large, in place of Entries.
	Content Content
}

// Key is one key; the key type determines which fields count.
type Key struct {
	inet.Element
	Iface    string
	Hardware inet.Hardware
	// Slot is the number in a key of type Slot4, Slot6 or PortSlot.
	Slot uint16
	// Dst is the destination in a key of type Flow4 or Flow6; Element is the source. In an interval Dst is
	// the last address and port, and Element the first.
	Dst netip.AddrPort
}

// rangeKey returns the key of a range in an interval set.
func rangeKey(r inet.Range) Key {
	return Key{Element: r.First, Dst: netip.AddrPortFrom(r.Last.Addr, r.Last.Port)}
}

// Range returns the range of a key of an interval set.
func (k Key) Range() inet.Range {
	return inet.Range{First: k.Element, Last: inet.Element{Addr: k.Dst.Addr(), Port: k.Dst.Port()}}
}

// Entry is a key and, in a map, its verdict or value.
type Entry struct {
	Key     Key
	Verdict Verdict
	// To is the value in a data map.
	To netip.AddrPort
	// Comment is for readers, and for values that a later process must find.
	Comment string
}

// Chain is a chain; Base is nil for chains that only other chains call.
type Chain struct {
	Name  string
	Base  *Base
	Rules []Rule
}

// Base defines where the kernel calls a base chain.
type Base struct {
	Type     string // "nat" or "filter"
	Hook     string // "prerouting", "input", "forward", "output" or "postrouting"
	Priority int32
}

// Rule is a list of statements: matches that must all hold, then actions.
type Rule struct {
	Statements []Statement
	Comment    string
	// Family is the family of all packets of the rule, if its table sees only one: then no statement
	// compares it.
	Family inet.Family
	// raw is the fingerprint of a rule read from the kernel.
	raw string
}

// VerdictKind is the kind of a verdict.
type VerdictKind uint8

// The verdicts. The zero value is no verdict: evaluation continues.
const (
	None VerdictKind = iota
	Accept
	Drop
	Return
	Jump
	Goto
)

// Verdict ends a rule, or is the value of a map.
type Verdict struct {
	Kind  VerdictKind
	Chain string // for Jump and Goto
}

// JumpTo calls a chain, which may return.
func JumpTo(chain string) Verdict { return Verdict{Kind: Jump, Chain: chain} }

// GoTo continues in a chain and never returns to this one.
func GoTo(chain string) Verdict { return Verdict{Kind: Goto, Chain: chain} }

// Add appends a rule to a chain under construction.
func (c *Chain) Add(comment string, s ...Statement) {
	c.Rules = append(c.Rules, Rule{Statements: s, Comment: comment})
}

// Sort sorts sets and chains into the canonical order of a table.
func (t *Table) Sort() {
	slices.SortFunc(t.Sets, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Chains, compareChains)
}

// compareChains sorts base chains first.
func compareChains(a, b *Chain) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
}

func rank(c *Chain) int {
	if c.Base != nil {
		return 0
	}
	return 1
}

// Compare orders entries by their keys.
func (e Entry) Compare(o Entry) int {
	return cmp.Or(e.Key.Compare(o.Key.Element),
		cmp.Compare(e.Key.Iface, o.Key.Iface), e.Key.Hardware.Compare(o.Key.Hardware),
		cmp.Compare(e.Key.Slot, o.Key.Slot))
}

// Set returns the set of that name, or nil.
func (t *Table) Set(name string) *Set {
	for _, s := range t.Sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Chain returns the chain of that name, or nil.
func (t *Table) Chain(name string) *Chain {
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Len returns the number of elements of a set or map.
func (s *Set) Len() int {
	n := s.Elements.Len() + len(s.Ranges) + len(s.Entries)
	if s.Content != nil {
		n += s.Content.Len()
	}
	return n
}
