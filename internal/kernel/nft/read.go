// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Read returns the actual table, or nil if there is none. It includes sets and chains of other programs, so
// that Diff removes them.
func (c *Conn) Read() (*Table, error) { return c.ReadUntil(context.Background()) }

// ReadUntil is Read, but returns soon after the context ends.
func (c *Conn) ReadUntil(ctx context.Context) (*Table, error) {
	found, copied, err := c.find()
	if err != nil || found == nil {
		return nil, err
	}
	t := &Table{TableID: c.id, Dormant: found.Flags&nftables.TableFlagDormant != 0, Copied: copied}
	for _, read := range []func(context.Context, *Table) error{c.readCounters, c.readSets, c.readChains} {
		if err := read(ctx, t); err != nil {
			return nil, fmt.Errorf("reading table %s: %w", c.id, err)
		}
	}
	return t, nil
}

// Exists reports whether our table or its copy exists. Unlike Read its cost does not depend on the size of
// the table.
func (c *Conn) Exists() (bool, error) {
	found, copied, err := c.find()
	return found != nil || copied, err
}

// find returns our table from the kernel, or nil, and whether it has a copy.
func (c *Conn) find() (found *nftables.Table, copied bool, err error) {
	tables, err := c.nl.ListTablesOfFamily(c.table.Family)
	if err != nil {
		return nil, false, fmt.Errorf("listing tables: %w", err)
	}
	for _, t := range tables {
		switch t.Name {
		case c.id.Name:
			found = t
		case c.id.Copy().Name:
			copied = true
		}
	}
	return found, copied, nil
}

func (c *Conn) readCounters(_ context.Context, t *Table) error {
	list, err := c.Counters()
	for name := range list {
		t.Counters = append(t.Counters, name)
	}
	slices.Sort(t.Counters)
	return err
}

// Counters returns the packets counted by each named counter of the table.
func (c *Conn) Counters() (map[string]uint64, error) {
	packets := map[string]uint64{}
	return packets, c.count(packets)
}

// count adds the counters of the table; a missing table has none.
func (c *Conn) count(packets map[string]uint64) error {
	objects, err := c.nl.GetNamedObjects(c.table)
	if err != nil && !IsMissing(err) {
		return fmt.Errorf("reading counters: %w", err)
	}
	for _, o := range objects {
		if named, ok := o.(*nftables.NamedObj); ok {
			if counter, ok := named.Obj.(*expr.Counter); ok {
				packets[named.Name] += counter.Packets
			}
		}
	}
	return nil
}

// verdictOf decodes the value of a map element, which the library returns as the bytes of the kernel's
// verdict attributes.
func verdictOf(data []byte) (Verdict, error) {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return Verdict{}, fmt.Errorf("decoding a verdict: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	var v Verdict
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = verdictKind(expr.VerdictKind(int32(ad.Uint32())))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = ad.String()
		}
	}
	return v, ad.Err()
}

func verdictKind(k expr.VerdictKind) VerdictKind {
	for kind := Accept; kind <= Goto; kind++ {
		if own, _ := (Verdict{Kind: kind}).kernel(); own == k {
			return kind
		}
	}
	return None
}

func (c *Conn) readChains(ctx context.Context, t *Table) error {
	chains, err := c.nl.ListChainsOfTableFamily(c.table.Family)
	if err != nil {
		return err
	}
	for _, k := range chains {
		if k.Table.Name != c.id.Name {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		chain := &Chain{Name: k.Name, Base: baseOf(k)}
		rules, err := c.nl.GetRules(c.table, k)
		if err != nil {
			return fmt.Errorf("chain %s: %w", k.Name, err)
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			chain.Rules = append(chain.Rules, Rule{Comment: comment, raw: fingerprint(r.Exprs, comment)})
		}
		t.Chains = append(t.Chains, chain)
	}
	slices.SortFunc(t.Chains, compareChains)
	return nil
}

func baseOf(k *nftables.Chain) *Base {
	if k.Hooknum == nil || k.Priority == nil {
		return nil
	}
	b := &Base{Type: string(k.Type), Priority: int32(*k.Priority)}
	if k.Policy != nil && *k.Policy == nftables.ChainPolicyDrop {
		b.Type += " policy drop" // not one of our base chains: Diff replaces it
	}
	for name, hook := range hooks() {
		if *hook == *k.Hooknum {
			b.Hook = name
		}
	}
	return b
}
