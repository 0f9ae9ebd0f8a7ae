// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A bridge shows IP packets behind one VLAN tag to the IP hooks, while a
// receiver takes off any number of tags with VLAN 0. A frame with two of them
// thus meets no chain of family inet. A second table of ours, of family bridge
// and with the same name, drops frames that have another tag behind one with
// VLAN 0; nobody has a use for those.
const (
	chainStacked   = "stacked-tags"
	counterStacked = "drop-stacked-tags"
)

// BridgeText is that table in nft's own language.
const BridgeText = `table bridge podwall {
	counter drop-stacked-tags {
	}

	chain stacked-tags {
		type filter hook forward priority -300; policy accept;
		meta protocol 0x8100 @ll,112,16 & 0xfff == 0 counter name "drop-stacked-tags" drop
		meta protocol 0x88a8 @ll,112,16 & 0xfff == 0 counter name "drop-stacked-tags" drop
	}
}
`

func (c *Conn) bridgeTable() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyBridge}
}

func stackedTags(etherType []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: etherType},
		// The outer tag, which the kernel has taken off and shows here again.
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: 14, Len: 2},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 2, Mask: []byte{0x0f, 0xff}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{0, 0}},
		&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counterStacked},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func stackedRules() [][]expr.Any {
	return [][]expr.Any{stackedTags([]byte{0x81, 0x00}), stackedTags([]byte{0x88, 0xa8})}
}

// DropsStackedTags reports whether the table of family bridge is there as it
// should be, and whether anything of that name is there at all.
func (c *Conn) DropsStackedTags() (right, exists bool, err error) {
	tables, err := c.nl.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return false, false, fmt.Errorf("listing tables of family bridge: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName })
	if i < 0 {
		return false, false, nil
	}
	if tables[i].Flags&nftables.TableFlagDormant != 0 {
		return false, true, nil
	}
	rules, err := c.nl.GetRules(c.bridgeTable(), &nftables.Chain{Name: chainStacked})
	if err != nil && !IsMissing(err) {
		return false, true, fmt.Errorf("reading chain %s: %w", chainStacked, err)
	}
	right = slices.EqualFunc(rules, stackedRules(), func(r *nftables.Rule, want []expr.Any) bool {
		return fingerprint(r.Exprs, "") == fingerprint(want, "")
	})
	return right, true, nil
}

// DropStackedTags makes the table of family bridge anew, or removes it.
func (c *Conn) DropStackedTags(on bool) error {
	t := c.bridgeTable()
	c.nl.AddTable(t) // so that the delete finds it
	c.nl.DelTable(t)
	if on {
		c.nl.AddTable(t)
		c.nl.AddObj(&nftables.NamedObj{Table: t, Name: counterStacked, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		accept := nftables.ChainPolicyAccept
		chain := c.nl.AddChain(&nftables.Chain{Table: t, Name: chainStacked, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(-300), Policy: &accept})
		for _, list := range stackedRules() {
			c.nl.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: list})
		}
	}
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("committing to table %s of family bridge: %w", TableName, err)
	}
	return nil
}
