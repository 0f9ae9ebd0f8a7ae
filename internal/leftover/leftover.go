// SPDX-License-Identifier: Apache-2.0

// Package leftover has the kernel objects of other programs as values: tables of nftables, of
// iptables in its nft flavour and of iptables-legacy, and what to remove of them. It reads and
// removes nothing: package host does, and who owns an object is decided by its callers.
package leftover

// Key identifies a table: the family as nft writes it (ip, ip6, inet) and the name.
type Key struct{ Family, Name string }

func (k Key) String() string { return k.Family + " " + k.Name }

// Table is a table of nftables.
type Table struct {
	Key
	Chains []Chain
}

// Chain is a chain with its rules that lead to another chain.
type Chain struct {
	Name string
	// Base is true for a chain that the kernel calls.
	Base  bool
	Jumps []Rule
}

// Rule is a rule with a jump or goto to Target.
type Rule struct {
	Handle uint64
	Target string
}

// LegacyTable is a table of iptables-legacy, with the names of its chains.
type LegacyTable struct {
	Key
	Chains []string
}

// Jump is a rule of a chain that leads to another one.
type Jump struct {
	Table Key
	Chain string
	Rule
}

// ChainName is a chain to remove with all its rules.
type ChainName struct {
	Table Key
	Name  string
}

// Removal lists objects that are removed in one transaction, in this order.
type Removal struct {
	Jumps  []Jump
	Chains []ChainName
	Tables []Key
}

// Empty reports whether there is nothing to remove.
func (r Removal) Empty() bool { return len(r.Jumps)+len(r.Chains)+len(r.Tables) == 0 }
