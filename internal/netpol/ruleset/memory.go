// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// WithMemory returns the table with other memories: the bridges that carried
// pods, which are not open then and have their chains, and the settings to restore.
func WithMemory(t *nft.Table, carried []string, restore []program.Saved) *nft.Table {
	with := *t
	with.Sets = slices.Clone(t.Sets)
	for i, s := range with.Sets {
		switch s.Name {
		case setCarried:
			s = &nft.Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: interfaces(carried)}
		case setRestore:
			s = &nft.Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: saved(restore)}
		case setOpenLinks:
			open := slices.DeleteFunc(slices.Clone(s.Entries), func(e nft.Entry) bool { return slices.Contains(carried, e.Key.Iface) })
			s = &nft.Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: open}
		}
		with.Sets[i] = s
	}
	with.Chains = withEverybody(t, len(carried) > 0)
	return &with
}

// withEverybody adds the chains of a node with bridges to those of a table that
// was written when there was none.
func withEverybody(t *nft.Table, bridged bool) []*nft.Chain {
	n := program.Node{FilterHook: t.Chain(chainPostrouting+"-filter") != nil}
	if s := t.Set(setOpenLinks); s != nil {
		n.OpenUnknown = s.Len() == 0 // a closed node has its own lo there, at least
	}
	list := slices.Clone(t.Chains)
	for _, c := range everybody(n) {
		if bridged && t.Chain(c.Name) == nil {
			list = append(list, c)
		}
	}
	(&nft.Table{Chains: list}).Sort()
	return list
}

// WithoutPods returns the table in which no known pod has one of the addresses:
// what goes there is closed, and nobody may speak from there.
func WithoutPods(t *nft.Table, addrs []netip.Addr) *nft.Table { return without(t, addrs, ofPods()) }

// without takes the addresses out of some sets.
func without(t *nft.Table, addrs []netip.Addr, names []string) *nft.Table {
	with := *t
	with.Sets = slices.Clone(t.Sets)
	gone := func(a netip.Addr) bool { return slices.Contains(addrs, a) }
	for i, s := range with.Sets {
		if !slices.Contains(names, s.Name) {
			continue
		}
		less := *s
		less.Entries = slices.DeleteFunc(slices.Clone(s.Entries), func(e nft.Entry) bool { return gone(e.Key.Addr) })
		for _, a := range addrs {
			less.Elements = less.Elements.Without(inet.Element{Addr: a})
		}
		with.Sets[i] = &less
	}
	return &with
}

// ofPods are the names of the sets without which an address is no pod's.
func ofPods() (names []string) {
	for _, f := range inet.Families {
		names = append(names, perFamily("to", f), perFamily("source", f))
	}
	return names
}

// ofLocal are the names of all sets that have the addresses of local pods.
func ofLocal() (names []string) {
	for _, f := range inet.Families {
		for _, name := range []string{"from", "guard-from", "guard-to", "local", "self", "source", "to"} {
			names = append(names, perFamily(name, f))
		}
	}
	return names
}

// Release takes addresses out of whatever the table in the kernel says of local
// pods, without reading the rest of it, and returns how many elements that were.
func Release(c *nft.Conn, addrs []netip.Addr) (elements int, err error) {
	if exists, err := c.Exists(); err != nil || !exists {
		return 0, err
	}
	names := ofLocal()
	sets, err := c.ReadSets(context.Background(), func(name string) bool { return slices.Contains(names, name) })
	if err != nil {
		return 0, fmt.Errorf("reading the local pods of table %s: %w", Table(), err)
	}
	// What is not ours the first Apply replaces.
	t := &nft.Table{TableID: Table(), Sets: slices.DeleteFunc(sets, func(s *nft.Set) bool { return s.Key == 0 })}
	ops := nft.Diff(t, without(t, addrs, names))
	for _, op := range ops {
		elements += op.Elements()
	}
	return elements, c.Commit(ops)
}
