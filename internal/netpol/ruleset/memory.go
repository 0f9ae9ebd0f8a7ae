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

// WithMemory returns the table with other pod bridges, which are then not among the
// non-pod interfaces and have their chains, and with other settings to restore.
func WithMemory(t *nft.Table, carried []string, restore []program.Saved) *nft.Table {
	with := *t
	with.Sets = slices.Clone(t.Sets)
	for i, s := range with.Sets {
		switch s.Name {
		case setPodBridges:
			s = &nft.Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: interfaces(carried)}
		case setSavedSettings:
			s = &nft.Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: saved(restore)}
		case setNonPodLinks:
			open := slices.DeleteFunc(slices.Clone(s.Entries),
				func(e nft.Entry) bool { return slices.Contains(carried, e.Key.Iface) })
			s = &nft.Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: open}
		}
		with.Sets[i] = s
	}
	with.Chains = withPrerouting(t, len(carried) > 0)
	return &with
}

// withPrerouting adds the chains of a node with bridges to those of a table that
// was written when there was none.
func withPrerouting(t *nft.Table, bridged bool) []*nft.Chain {
	n := program.Node{FilterHook: t.Chain(chainPostrouting+"-filter") != nil}
	if s := t.Set(setNonPodLinks); s != nil {
		n.OpenUnknown = s.Len() == 0 // a closed node has its own lo there, at least
	}
	list := slices.Clone(t.Chains)
	for _, c := range preroutingChains(n) {
		if bridged && t.Chain(c.Name) == nil {
			list = append(list, c)
		}
	}
	(&nft.Table{Chains: list}).Sort()
	return list
}

// WithoutPods returns the table in which none of the addresses is a known pod's:
// packets to them and from them are dropped.
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

// ofPods returns the names of the sets that make an address a known pod's.
func ofPods() (names []string) {
	for _, f := range inet.Families {
		names = append(names, perFamily(setPodIngress, f), perFamily(setIfaceSource, f))
	}
	return names
}

// ofLocal returns the names of all sets with addresses of local pods.
func ofLocal() (names []string) {
	for _, f := range inet.Families {
		for _, name := range []string{setPodEgress, setGuardEgress, setGuardIngress, setLocalPods, setHairpin,
			setIfaceSource, setPodIngress} {
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
