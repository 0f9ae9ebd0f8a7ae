// SPDX-License-Identifier: Apache-2.0

// Package leftover has the kernel objects of other programs as values: tables of nftables, of
// iptables in its nft flavour and of iptables-legacy, and what to remove of them. It reads and
// removes nothing: package host does, and who owns an object is decided by its callers.
package leftover

import "fmt"

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

// Recipe returns shell commands that remove chains from the table: one transaction that flushes the chains,
// deletes the jumps and then the chains, and names nothing else. Saving, filtering and restoring a whole
// table would lose changes that other programs make meanwhile. The expression own, in awk's syntax, matches
// the whole name of a chain to remove.
func (t LegacyTable) Recipe(own string) string {
	program := "iptables-legacy"
	if t.Family == "ip6" {
		program = "ip6tables-legacy"
	}
	return fmt.Sprintf(`  %[1]s-save -t %[2]s | awk '
    function own(c) { return c ~ /^(%[3]s)$/ }
    BEGIN { print "*%[2]s" }
    /^:/ { c = substr($1, 2); if (own(c)) { print ":" c " - [0:0]"; gone = gone "-X " c "\n" } }
    /^-A/ && !own($2) && own($NF) { sub(/^-A/, "-D"); print }
    END { printf "%%sCOMMIT\n", gone }' | %[1]s-restore --wait --noflush
`, program, t.Name, own)
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
