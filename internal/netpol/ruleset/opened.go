// SPDX-License-Identifier: Apache-2.0

package ruleset

import "github.com/podwall/podwall/internal/kernel/nft"

// OpenName is the table that says that the node is open on purpose. It judges
// nothing. It lives as long as the kernel, so an agent that starts finds it, and a
// reboot ends it.
const OpenName = "podwall-open"

// chainWhy has one rule, which nothing meets: its comment says why.
const chainWhy = "why"

// OpenTable names that table.
func OpenTable() nft.TableID { return nft.TableID{Family: nft.FamilyINet, Name: OpenName} }

// Opened reports whether the node is open on purpose, and why.
func Opened(c *nft.Conn) (why string, opened bool, err error) {
	mark, err := c.Of(OpenTable()).Read()
	if err != nil || mark == nil {
		return "", false, err
	}
	for _, chain := range mark.Chains {
		for _, r := range chain.Rules {
			if r.Comment != "" {
				return r.Comment, true, nil
			}
		}
	}
	return "no reason was given", true, nil // the table was made by hand
}

// MarkOpen says that the node is open on purpose, in place of what was said before.
func MarkOpen(c *nft.Conn, why string) error {
	c = c.Of(OpenTable())
	actual, err := c.Read()
	if err != nil {
		return err
	}
	chain := &nft.Chain{Name: chainWhy}
	chain.Add(why, nft.Verdict{Kind: nft.Return})
	return c.Commit(nft.Diff(actual, &nft.Table{TableID: OpenTable(), Chains: []*nft.Chain{chain}}))
}

// UnmarkOpen takes that back; it is no error if the node was not open.
func UnmarkOpen(c *nft.Conn) error { return c.Of(OpenTable()).Delete() }
