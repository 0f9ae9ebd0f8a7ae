// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/filter"
)

// Read returns the actual table, or nil if there is none. Sets and chains that
// are not of our making are part of it, so that Diff removes them.
func (c *Conn) Read() (*Table, error) {
	exists, err := c.exists()
	if err != nil || !exists {
		return nil, err
	}
	t := &Table{}
	for _, read := range []func(*Table) error{c.readCounters, c.readSets, c.readChains} {
		if err := read(t); err != nil {
			return nil, fmt.Errorf("reading table %s: %w", TableName, err)
		}
	}
	return t, nil
}

func (c *Conn) exists() (bool, error) {
	tables, err := c.nl.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("listing tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName }), nil
}

func (c *Conn) readCounters(t *Table) error {
	list, err := c.Counters()
	for name := range list {
		t.Counters = append(t.Counters, name)
	}
	slices.Sort(t.Counters)
	return err
}

// Counters returns the packets counted by each named counter of the table.
func (c *Conn) Counters() (map[string]uint64, error) {
	objects, err := c.nl.GetNamedObjects(c.table)
	if err != nil {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	packets := map[string]uint64{}
	for _, o := range objects {
		if named, ok := o.(*nftables.NamedObj); ok {
			if counter, ok := named.Obj.(*expr.Counter); ok {
				packets[named.Name] = counter.Packets
			}
		}
	}
	return packets, nil
}

func (c *Conn) readSets(t *Table) error {
	sets, err := c.nl.GetSets(c.table)
	if err != nil {
		return err
	}
	for _, k := range sets {
		s := &Set{Name: k.Name, Map: k.IsMap, Interval: k.Interval, Comment: k.Comment}
		var ok bool
		if s.Key, ok = keyType(k.KeyType); !ok {
			t.Sets = append(t.Sets, s) // foreign: Diff deletes it
			continue
		}
		list, err := c.nl.GetSetElements(k)
		if err != nil {
			return fmt.Errorf("set %s: %w", k.Name, err)
		}
		if err := s.take(list); err != nil {
			return fmt.Errorf("set %s: %w", k.Name, err)
		}
		t.Sets = append(t.Sets, s)
	}
	slices.SortFunc(t.Sets, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// take turns the kernel's elements into ours.
func (s *Set) take(list []nftables.SetElement) error {
	if s.Interval {
		return s.takeIntervals(list)
	}
	plain := !s.Map && s.Key != Interface && s.Key != Pair4 && s.Key != Pair6
	for _, k := range list {
		key, err := s.Key.parse(k.Key)
		if err != nil {
			return err
		}
		e := Entry{Key: key, Comment: k.Comment}
		if s.Map {
			if e.Verdict, err = verdictOf(k.Val); err != nil {
				return err
			}
		}
		if plain {
			s.Elements = s.Elements.With(key.Element)
		} else {
			s.Entries = append(s.Entries, e)
		}
	}
	slices.SortFunc(s.Entries, func(a, b Entry) int {
		return cmp.Or(a.Key.Compare(b.Key.Element), cmp.Compare(a.Key.Iface, b.Key.Iface))
	})
	return nil
}

// takeIntervals pairs starts with ends. Ours are always prefixes; what is none
// of them is kept under its first address and thus found as a difference.
func (s *Set) takeIntervals(list []nftables.SetElement) error {
	bits := uint8(s.Key.datatype().Bytes * 8)
	ends := map[netip.Addr]bool{}
	for _, k := range list {
		if k.IntervalEnd {
			a, _ := netip.AddrFromSlice(k.Key)
			ends[a] = true
		}
	}
	for _, k := range list {
		if k.IntervalEnd {
			continue
		}
		a, ok := netip.AddrFromSlice(k.Key)
		if !ok {
			return fmt.Errorf("parsing an interval of %d bytes", len(k.Key))
		}
		s.Elements = s.Elements.With(filter.Element{Addr: a, Bits: prefixLength(a, bits, ends)})
	}
	return nil
}

// prefixLength finds the narrowest prefix that starts at the address and ends
// at an end mark; intervals do not overlap, so that is its own end.
func prefixLength(a netip.Addr, max uint8, ends map[netip.Addr]bool) uint8 {
	for bits := max; ; bits-- {
		p := netip.PrefixFrom(a, int(bits))
		if p.Masked().Addr() != a {
			return max
		}
		if next, ok := after(p); !ok || ends[next] {
			return bits
		}
		if bits == 0 {
			return max
		}
	}
}

// verdictOf decodes the value of a map element, which the library hands over
// as the bytes of the kernel's verdict attributes.
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

func (c *Conn) readChains(t *Table) error {
	chains, err := c.nl.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, k := range chains {
		if k.Table.Name != TableName {
			continue
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
	for name, hook := range hooks() {
		if *hook == *k.Hooknum {
			b.Hook = name
		}
	}
	return b
}
