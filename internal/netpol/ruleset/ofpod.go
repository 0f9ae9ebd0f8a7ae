// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
)

// PodPart is the part of a table that is about one pod.
type PodPart struct {
	// Table has the elements of the verdict maps for the pod's addresses, the chains that
	// they lead to, and what these refer to. Of a large set it has some elements only, and
	// the set's comment says so.
	Table *nft.Table
	// MemberOf names the sets that have one of the addresses: the pod as a peer of others.
	MemberOf []string
}

// maxShown is how many elements of a set are shown.
const maxShown = 16

// OfPod returns the part of a rendered table that is about the pod with these addresses.
func OfPod(t *nft.Table, addrs []netip.Addr) PodPart {
	w := partWalk{table: t, chains: map[string]bool{}, sets: map[string]bool{}}
	part := PodPart{Table: &nft.Table{TableID: t.TableID}}
	for _, f := range inet.Families {
		for _, name := range []string{perFamily(setPodEgress, f), perFamily(setPodIngress, f)} {
			if s := entriesOf(t.Set(name), addrs); s != nil {
				part.Table.Sets = append(part.Table.Sets, s)
				w.entries(s)
			}
		}
	}
	for _, c := range t.Chains {
		if w.chains[c.Name] {
			part.Table.Chains = append(part.Table.Chains, c)
		}
	}
	for _, s := range t.Sets {
		if w.sets[s.Name] {
			part.Table.Sets = append(part.Table.Sets, shown(s))
		}
		if !s.Map && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return isPeer(s, a) }) {
			part.MemberOf = append(part.MemberOf, s.Name)
		}
	}
	return part
}

// entriesOf is a verdict map with the entries of some addresses only; nil if it has none.
func entriesOf(s *nft.Set, addrs []netip.Addr) *nft.Set {
	if s == nil {
		return nil
	}
	c := *s
	c.Entries = nil
	for _, e := range s.Entries {
		if slices.Contains(addrs, e.Key.Addr) && e.Verdict.Chain != "" {
			c.Entries = append(c.Entries, e)
		}
	}
	if len(c.Entries) == 0 {
		return nil
	}
	return &c
}

// partWalk collects chains and sets from references to them.
type partWalk struct {
	table        *nft.Table
	chains, sets map[string]bool
}

func (w *partWalk) entries(s *nft.Set) {
	for _, e := range s.Entries {
		w.chain(e.Verdict.Chain)
	}
}

func (w *partWalk) chain(name string) {
	c := w.table.Chain(name)
	if c == nil || c.Base != nil || w.chains[name] {
		return
	}
	w.chains[name] = true
	for _, r := range c.Rules {
		for _, s := range r.Statements {
			switch s := s.(type) {
			case nft.Verdict:
				w.chain(s.Chain)
			case nft.Lookup:
				w.set(s.Set)
			}
		}
	}
}

func (w *partWalk) set(name string) {
	if s := w.table.Set(name); s != nil && !w.sets[name] {
		w.sets[name] = true
		w.entries(s)
	}
}

// shown is a set with as many elements as a person reads.
func shown(s *nft.Set) *nft.Set {
	c := *s
	total := len(s.Ranges)
	if list := inet.Sorted(s.Elements); len(list) > maxShown {
		total, c.Elements = len(list), inet.Elements{}
		for _, e := range list[:maxShown] {
			c.Elements = c.Elements.With(e)
		}
	}
	if len(s.Ranges) > maxShown {
		c.Ranges = s.Ranges[:maxShown]
	}
	if total > maxShown {
		c.Comment = fmt.Sprintf("%d of %d elements; %s", maxShown, total, s.Comment)
	}
	return &c
}

// isPeer reports whether a set of addresses, or of addresses and ports, has the address.
func isPeer(s *nft.Set, a netip.Addr) bool {
	switch s.Key {
	case nft.Addr4, nft.Addr6:
		return s.Elements.Has(inet.Element{Addr: a}) ||
			slices.ContainsFunc(s.Ranges, func(r inet.Range) bool { return r.Contains(inet.Element{Addr: a}) })
	}
	return false
}
