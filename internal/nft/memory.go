// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/filter"
)

// WithMemory returns the table with other memories: the bridges that carried
// pods, which are not open then and have their chains, and the settings to restore.
func WithMemory(t *Table, carried []string, restore []Entry) *Table {
	with := *t
	with.Sets = slices.Clone(t.Sets)
	for i, s := range with.Sets {
		switch s.Name {
		case setCarried:
			s = &Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: interfaces(carried)}
		case setRestore:
			s = &Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: restore}
		case setOpenLinks:
			open := slices.DeleteFunc(slices.Clone(s.Entries), func(e Entry) bool { return slices.Contains(carried, e.Key.Iface) })
			s = &Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: open}
		}
		with.Sets[i] = s
	}
	with.Chains = withEverybody(t, len(carried) > 0)
	return &with
}

// withEverybody adds the chains of a node with bridges to those of a table that
// was written when there was none.
func withEverybody(t *Table, bridged bool) []*Chain {
	n := Node{FilterHook: t.Chain(chainPostrouting+"-filter") != nil}
	if s := t.Set(setOpenLinks); s != nil {
		n.Closed = s.Len() > 0 // the node's own lo, at least
	}
	list := slices.Clone(t.Chains)
	for _, c := range everybody(n) {
		if bridged && t.Chain(c.Name) == nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, compareChains)
	return list
}

// WithoutPods returns the table in which no known pod has one of the addresses:
// what goes there is closed, and nobody may speak from there.
func WithoutPods(t *Table, addrs []netip.Addr) *Table {
	with := *t
	with.Sets = slices.Clone(t.Sets)
	for i, s := range with.Sets {
		if slices.Contains(ofPods(), s.Name) {
			less := *s
			less.Entries = slices.DeleteFunc(slices.Clone(s.Entries), func(e Entry) bool { return slices.Contains(addrs, e.Key.Addr) })
			with.Sets[i] = &less
		}
	}
	return &with
}

// ofPods are the names of the sets without which an address is no pod's.
func ofPods() (names []string) {
	for _, f := range filter.Families {
		names = append(names, perFamily("to", f), perFamily("source", f))
	}
	return names
}
