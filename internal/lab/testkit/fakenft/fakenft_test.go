// SPDX-License-Identifier: Apache-2.0

package fakenft

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
)

func entry(ip string, bits uint8) nft.Entry {
	p := netip.PrefixFrom(netip.MustParseAddr(ip), int(bits))
	e := nft.Entry{Key: nft.Key{Element: inet.Element{Addr: p.Addr()}}}
	if bits > 0 {
		e.Key.Dst = netip.AddrPortFrom(inet.LastAddr(p), 0)
	}
	return e
}

func judged(ip, chain string) nft.Entry {
	e := entry(ip, 0)
	e.Verdict = nft.Verdict{Kind: nft.Goto, Chain: chain}
	return e
}

// The fake is worth as much as what it refuses.
func TestItRefusesWhatTheKernelRefuses(t *testing.T) {
	set := &nft.Set{Name: "s", Key: nft.Addr4}
	vmap := &nft.Set{Name: "m", Key: nft.Addr4, Map: true}
	blocks := &nft.Set{Name: "b", Key: nft.Addr4, Interval: true}
	asks := &nft.Chain{Name: "asks", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Lookup{Field: nft.Source, Family: inet.IPv4,
		Set: "s"}, nft.Verdict{Kind: nft.Drop}}}}}
	jumps := &nft.Chain{Name: "jumps", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Verdict{Kind: nft.Jump, Chain: "asks"}}}}}
	counts := &nft.Chain{Name: "counts", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Count{Counter: "c"}}}}}
	start := []nft.Op{
		{Kind: nft.AddTable}, {Kind: nft.AddSet, Set: set}, {Kind: nft.AddSet, Set: vmap}, {Kind: nft.AddSet, Set: blocks},
		{Kind: nft.AddElements, Set: set, Entries: []nft.Entry{entry("10.0.0.1", 0)}},
		{Kind: nft.AddElements, Set: blocks, Entries: []nft.Entry{entry("10.0.0.0", 8)}},
		{Kind: nft.AddChain, Chain: asks}, {Kind: nft.AddRules, Chain: asks},
		{Kind: nft.AddChain, Chain: jumps},
		{Kind: nft.SwapElements, Set: vmap, Entries: []nft.Entry{judged("10.0.0.1", "jumps")}},
	}
	tests := []struct {
		name string
		ops  []nft.Op
		want error
	}{
		{"delete a missing element", []nft.Op{{Kind: nft.DeleteElements, Set: set, Entries: []nft.Entry{entry("10.0.0.2", 0)}}}, ErrMissing},
		{"delete an element twice", []nft.Op{{Kind: nft.SwapElements, Set: vmap, Removed: []nft.Entry{judged("10.0.0.1", "jumps"), judged("10.0.0.1", "jumps")}}}, ErrMissing},
		{"add an element that is there", []nft.Op{{Kind: nft.AddElements, Set: set, Entries: []nft.Entry{entry("10.0.0.1", 0)}}}, nil},
		{"add it with another verdict", []nft.Op{{Kind: nft.SwapElements, Set: vmap, Entries: []nft.Entry{judged("10.0.0.1", "asks")}}}, ErrExists},
		{"an element for a missing chain", []nft.Op{{Kind: nft.SwapElements, Set: vmap, Entries: []nft.Entry{judged("10.0.0.2", "no")}}}, ErrMissing},
		{"an element of a map without a verdict", []nft.Op{{Kind: nft.AddElements, Set: vmap, Entries: []nft.Entry{entry("10.0.0.2", 0)}}}, ErrInvalid},
		{"an interval inside another", []nft.Op{{Kind: nft.AddElements, Set: blocks, Entries: []nft.Entry{entry("10.1.0.0", 16)}}}, ErrExists},
		{"elements of a missing set", []nft.Op{{Kind: nft.AddElements, Set: &nft.Set{Name: "no"}, Entries: []nft.Entry{entry("10.0.0.2", 0)}}}, ErrMissing},
		{"rules for a missing chain", []nft.Op{{Kind: nft.AddRules, Chain: &nft.Chain{Name: "no"}}}, ErrMissing},
		{"a rule that asks a missing set", []nft.Op{{Kind: nft.AddRules, Chain: &nft.Chain{Name: "jumps", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Lookup{Set: "no"}}}}}}}, ErrMissing},
		{"a rule that takes a set for a map", []nft.Op{{Kind: nft.AddRules, Chain: &nft.Chain{Name: "jumps", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Lookup{Set: "s", Map: true}}}}}}}, ErrInvalid},
		{"a rule that jumps to a missing chain", []nft.Op{{Kind: nft.AddRules, Chain: &nft.Chain{Name: "jumps", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Verdict{Kind: nft.Jump, Chain: "no"}}}}}}}, ErrMissing},
		{"a rule that counts without a counter", []nft.Op{{Kind: nft.AddChain, Chain: counts}, {Kind: nft.AddRules, Chain: counts}}, ErrMissing},
		{"delete a set that a rule asks", []nft.Op{{Kind: nft.DeleteSet, Set: set}}, ErrBusy},
		{"delete a missing set", []nft.Op{{Kind: nft.DeleteSet, Set: &nft.Set{Name: "no"}}}, ErrMissing},
		{"delete a chain that an element refers to", []nft.Op{{Kind: nft.DeleteChain, Chain: jumps}}, ErrBusy},
		{"delete a chain that a rule refers to", []nft.Op{{Kind: nft.AddRules, Chain: jumps}, {Kind: nft.DeleteChain, Chain: asks}}, ErrBusy},
		{"delete a chain after its map", []nft.Op{{Kind: nft.DeleteSet, Set: vmap}, {Kind: nft.DeleteChain, Chain: jumps}}, nil},
		{"flush a missing chain", []nft.Op{{Kind: nft.FlushChain, Chain: &nft.Chain{Name: "no"}}}, ErrMissing},
		{"anything without a table", []nft.Op{{Kind: nft.DeleteTable}, {Kind: nft.AddCounter, Counter: "c"}}, ErrNoTable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var k Kernel
			if err := k.Commit(start); err != nil {
				t.Fatal(err)
			}
			before := k.Table().String()
			err := k.Commit(append([]nft.Op{{Kind: nft.AddSet, Set: &nft.Set{Name: "first", Key: nft.Addr4}}}, tt.ops...))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error = %v, want %v", err, tt.want)
			}
			if err == nil {
				return
			}
			if diff := cmp.Diff(before, k.Table().String()); diff != "" {
				t.Errorf("a refused transaction changed something:\n%s", diff)
			}
		})
	}
}
