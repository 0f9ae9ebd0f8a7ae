// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// randomTable is the table of a random cluster, the same for the same seed.
func randomTable(seed int) *nft.Table {
	return rapid.Custom(func(t *rapid.T) *nft.Table {
		n := node(t)
		n.Restore = []program.Saved{{Name: "br0", Text: "nf_call_iptables=0 nf_call_ip6tables=1"}}
		return ruleset.Render(programOf(gen.Snapshot(t)), n)
	}).Example(seed)
}

// roundTrips are the seeds of every run; `make fuzz` takes more.
const roundTrips = 30

// FuzzTextRoundTrip takes random tables through their text.
func FuzzTextRoundTrip(f *testing.F) {
	for seed := range roundTrips {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int) { throughText(t, randomTable(seed)) })
}

// The golden rulesets have kinds of sets that random clusters have not.
func TestGoldenTablesGoThroughTheirText(t *testing.T) {
	for name, s := range scenarios(t) {
		t.Run(name, func(t *testing.T) { throughText(t, ruleset.Render(programOf(s.snapshot(t)), s.node)) })
	}
}

// throughText has the nft program read what String writes, and what nft itself
// lists of a table that was written by netlink. Both times the kernel then has
// the table, no more and no less.
func throughText(t *testing.T, want *nft.Table) {
	t.Helper()
	byNetlink := nftrun.Namespace(t)
	if err := connIn(t, byNetlink).Commit(nft.Diff(nil, want)); err != nil {
		t.Fatal(err)
	}
	listing := nftrun.Run(t, byNetlink, "", "list", "table", "inet", ruleset.TableName)
	for how, text := range map[string]string{"String": want.String(), "nft's listing": listing} {
		ns := nftrun.Namespace(t)
		nftrun.Run(t, ns, text, "-f", "-")
		sameTable(t, how, want, readIn(t, ns))
		for _, c := range want.Chains {
			if !prefersShort(c) {
				continue
			}
			list := []string{"list", "chain", "inet", ruleset.TableName, c.Name}
			if diff := cmp.Diff(nftrun.Run(t, byNetlink, "", list...), nftrun.Run(t, ns, "", list...)); diff != "" {
				t.Errorf("%s: chain %s (-by netlink +by text):\n%s", how, c.Name, diff)
			}
		}
	}
	if t.Failed() {
		t.Logf("the table:\n%s", want)
	}
}

// prefersShort reports whether a chain has a rule for which nft has another
// form than we: it compares a prefix of whole bytes without a mask. To the
// kernel it is another rule with the same meaning, so listings are compared.
func prefersShort(c *nft.Chain) bool {
	for _, r := range c.Rules {
		for _, s := range r.Statements {
			m, ok := s.(nft.MatchPrefix)
			if ok && m.Prefix.Bits() > 0 && m.Prefix.Bits()%8 == 0 && !m.Prefix.IsSingleIP() {
				return true
			}
		}
	}
	return false
}

// The random tables have what can go wrong: elements in every kind of set that
// random clusters lead to, and rules in chains of both directions and families.
func TestTheTablesOfTheRoundTripAreNotDull(t *testing.T) {
	kinds, prefixes := map[nft.KeyType]bool{}, map[string]bool{}
	for seed := range roundTrips {
		table := randomTable(seed)
		for _, s := range table.Sets {
			kinds[s.Key] = kinds[s.Key] || s.Len() > 0
		}
		for _, c := range table.Chains {
			prefix, _, _ := strings.Cut(c.Name, "-")
			prefixes[prefix] = prefixes[prefix] || len(c.Rules) > 2
		}
	}
	for _, k := range []nft.KeyType{nft.Addr4, nft.Addr6, nft.Pair4, nft.Pair6, nft.Addr4Port, nft.Interface} {
		if !kinds[k] {
			t.Errorf("no set of type %s has an element", k)
		}
	}
	for _, p := range []string{"ingress4", "ingress6", "egress4", "egress6", "postrouting"} {
		if !prefixes[p] {
			t.Errorf("no chain %s has several rules", p)
		}
	}
}

func connIn(t *testing.T, ns *netns.NS) *nft.Conn {
	t.Helper()
	c, err := ruleset.Open(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the namespace goes anyway
	return c
}

func readIn(t *testing.T, ns *netns.NS) *nft.Table {
	t.Helper()
	table, err := connIn(t, ns).Read()
	if err != nil {
		t.Fatal(err)
	}
	if table == nil {
		t.Fatal("there is no table")
	}
	return table
}

// sameTable wants no difference, but for rules of which nft has another form,
// and also the comments to be the same, which Diff does not look at.
func sameTable(t *testing.T, how string, want, got *nft.Table) {
	t.Helper()
	for _, op := range nft.Diff(got, want) {
		if (op.Kind == nft.FlushChain || op.Kind == nft.AddRules) && prefersShort(want.Chain(op.Chain.Name)) {
			continue
		}
		t.Errorf("%s: difference: %s", how, op)
	}
	if diff := cmp.Diff(withoutChains(want), withoutChains(got)); diff != "" {
		t.Errorf("%s: counters and sets (-written +read):\n%s", how, diff)
	}
}

func withoutChains(t *nft.Table) string {
	return (&nft.Table{Counters: t.Counters, Sets: t.Sets}).String()
}
