// SPDX-License-Identifier: Apache-2.0

// Package nft is the nftables backend. Render turns a program into the desired
// content of podwall's own table, Diff turns two states of the table into an
// ordered transaction, Table.String prints the ruleset in nft's own language;
// these are pure. Conn reads the table back and commits transactions, over
// netlink and without running any program.
//
// It knows nothing of Kubernetes. It never looks at another table except to
// find chains that would run before ours or that drop invalid packets.
package nft

import (
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/netpol/program"
)

// TableName is the name of podwall's table of family inet, and of the small ones
// of the families bridge (see BridgeText), ip and ip6 (see RenderPorts). It owns
// no other.
const TableName = "podwall"

// Table is the content of podwall's table, desired or actual. It is immutable
// once published.
type Table struct {
	// Family is set for the two small tables of RenderPorts; otherwise the family
	// is inet.
	Family   program.Family
	Counters []string // named counters, sorted
	Sets     []*Set   // sorted by name
	Chains   []*Chain // base chains first, then sorted by name
	// Dormant is true of an actual table whose chains somebody switched off.
	Dormant bool
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
)

// Set is a named set or, with Map, a named verdict map.
type Set struct {
	Name     string
	Key      KeyType
	Map      bool
	Interval bool
	Comment  string
	// Timeout is after how long without use the kernel forgets an element; 0 for
	// never.
	Timeout time.Duration
	// Elements are the members of a set of the program; shared with it.
	Elements program.Elements
	// Ranges are the members if Interval is set; shared with the program.
	Ranges []program.Range
	// Entries are the members of maps and of the small sets that the backend
	// adds, sorted by key. Elements is then empty.
	Entries []Entry
}

// Key is one key; which fields count is said by the key type.
type Key struct {
	program.Element
	Iface string
	// Dst is the destination in a key of type Flow4 or Flow6; Element is the
	// source. Of an interval it is the last address and port; Element is the first.
	Dst netip.AddrPort
}

// rangeKey returns the key of a range in an interval set.
func rangeKey(r program.Range) Key {
	return Key{Element: r.First, Dst: netip.AddrPortFrom(r.Last.Addr, r.Last.Port)}
}

// Range returns the range of a key of an interval set.
func (k Key) Range() program.Range {
	return program.Range{First: k.Element, Last: program.Element{Addr: k.Dst.Addr(), Port: k.Dst.Port()}}
}

// Entry is a key and, in a map, its verdict.
type Entry struct {
	Key     Key
	Verdict Verdict
	// Comment is for people, and for values that a later process must find.
	Comment string
}

// Chain is a chain; Base is nil for those that other chains jump to.
type Chain struct {
	Name  string
	Base  *Base
	Rules []Rule
}

// Base says where the kernel enters a base chain.
type Base struct {
	Type     string // "nat" or "filter"
	Hook     string // "prerouting", "input", "forward" or "postrouting"
	Priority int32
}

// Rule is a list of statements: matches that all have to be met, then what to
// do.
type Rule struct {
	Statements []Statement
	Comment    string
	// family is that of a table which has only one: then it is not compared.
	family program.Family
	// raw is the fingerprint of a rule that was read from the kernel.
	raw string
}

// VerdictKind is what a verdict does.
type VerdictKind uint8

// The verdicts. The zero value is none: the walk goes on.
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
func (s *Set) Len() int { return s.Elements.Len() + len(s.Ranges) + len(s.Entries) }
