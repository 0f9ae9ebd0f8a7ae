// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// OpenName is the table that says that the node is open on purpose. It judges
// nothing. It lives as long as the kernel, so an agent that starts finds it, and a
// reboot ends it.
const OpenName = "podwall-open"

// chainWhy has one rule, which nothing meets: its comment says why.
const chainWhy = "why"

func openTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: OpenName}
}

// Opened reports whether the node is open on purpose, and why.
func (c *Conn) Opened() (why string, opened bool, err error) {
	tables, err := c.nl.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", false, fmt.Errorf("listing tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == OpenName }) {
		return "", false, nil
	}
	rules, err := c.nl.GetRules(openTable(), &nftables.Chain{Name: chainWhy})
	if err != nil && !IsMissing(err) {
		return "", false, fmt.Errorf("reading table %s: %w", OpenName, err)
	}
	for _, r := range rules {
		if text, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok {
			return text, true, nil
		}
	}
	return "no reason was given", true, nil // somebody made the table by hand
}

// MarkOpen says that the node is open on purpose, in place of what was said before.
func (c *Conn) MarkOpen(why string) error {
	t := openTable()
	c.nl.AddTable(t) // so that the delete finds it
	c.nl.DelTable(t)
	c.nl.AddTable(t)
	chain := c.nl.AddChain(&nftables.Chain{Table: t, Name: chainWhy})
	c.nl.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Counter{}},
		UserData: userdata.AppendString(nil, userdata.TypeComment, clip(why))})
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("making table %s: %w", OpenName, err)
	}
	return nil
}

// UnmarkOpen takes that back; it is no error if the node was not open.
func (c *Conn) UnmarkOpen() error {
	t := openTable()
	c.nl.AddTable(t) // so that the delete finds it
	c.nl.DelTable(t)
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("deleting table %s: %w", OpenName, err)
	}
	return nil
}
