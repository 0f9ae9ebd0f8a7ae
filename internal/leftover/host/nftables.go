// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package host reads the kernel objects of other programs, and removes those that it is told to. It works
// in the network namespace of the process, over netlink: no iptables, nft or ipset program is needed.
package host

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/podwall/podwall/internal/leftover"
)

func families() map[nftables.TableFamily]string {
	return map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}
}

// Tables lists the nftables tables of the families ip and ip6, those of iptables-nft included. The jumps of
// a chain are read only where reads says so: tables may have very many rules.
func Tables(reads func(t leftover.Key, chain string) bool) (list []leftover.Table, err error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	defer func() { err = errors.Join(err, c.CloseLasting()) }()
	for family, word := range families() {
		found, err := c.ListTablesOfFamily(family)
		if err != nil {
			return nil, fmt.Errorf("listing tables: %w", err)
		}
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("listing chains: %w", err)
		}
		for _, t := range found {
			table := leftover.Table{Key: leftover.Key{Family: word, Name: t.Name}}
			if table.Chains, err = chainsOf(c, t, table.Key, chains, reads); err != nil {
				return nil, err
			}
			list = append(list, table)
		}
	}
	return list, nil
}

// chainsOf lists a table's chains.
func chainsOf(c *nftables.Conn, t *nftables.Table, key leftover.Key, all []*nftables.Chain,
	reads func(leftover.Key, string) bool) (list []leftover.Chain, err error) {
	for _, k := range all {
		if k.Table.Name != t.Name {
			continue
		}
		chain := leftover.Chain{Name: k.Name, Base: k.Hooknum != nil}
		if reads(key, k.Name) {
			rules, err := c.GetRules(t, k)
			if err != nil {
				return nil, fmt.Errorf("reading chain %s of table %s: %w", k.Name, t.Name, err)
			}
			chain.Jumps = jumps(rules)
		}
		list = append(list, chain)
	}
	return list, nil
}

func jumps(rules []*nftables.Rule) (list []leftover.Rule) {
	for _, r := range rules {
		for _, e := range r.Exprs {
			v, ok := e.(*expr.Verdict)
			if ok && (v.Kind == expr.VerdictJump || v.Kind == expr.VerdictGoto) {
				list = append(list, leftover.Rule{Handle: r.Handle, Target: v.Chain})
			}
		}
	}
	return list
}

// Remove deletes rules, chains and tables in one transaction, which the kernel applies completely or not at
// all. A rule or a table that no longer exists fails it, and the removal must be planned again.
func Remove(r leftover.Removal) error {
	if r.Empty() {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	for _, j := range r.Jumps {
		t := table(j.Table)
		if err := c.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: j.Chain, Table: t},
			Handle: j.Handle}); err != nil {
			return fmt.Errorf("deleting a rule of chain %s: %w", j.Chain, err)
		}
	}
	for _, k := range r.Chains { // before the first is deleted: they refer to each other
		c.FlushChain(&nftables.Chain{Name: k.Name, Table: table(k.Table)})
	}
	for _, k := range r.Chains {
		c.DelChain(&nftables.Chain{Name: k.Name, Table: table(k.Table)})
	}
	for _, k := range r.Tables {
		c.DelTable(table(k))
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing chains, nothing was changed: %w", err)
	}
	return nil
}

func table(k leftover.Key) *nftables.Table {
	for family, word := range families() {
		if word == k.Family {
			return &nftables.Table{Family: family, Name: k.Name}
		}
	}
	return &nftables.Table{Name: k.Name} // of no family: the kernel refuses it
}
