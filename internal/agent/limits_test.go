// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/observe"
)

// members returns n elements.
func members(n int) (list inet.Elements) {
	for i := range n {
		list = list.With(inet.Element{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
	}
	return list
}

// ranges returns n ranges.
func ranges(n int) []inet.Range { return make([]inet.Range, n) }

func TestTheLargestOfAKindIsNamed(t *testing.T) {
	c := counts{connections: observe.Connections{Entries: 7, Limit: 10}, rules: 99, widest: "old"}
	c.take(&nft.Table{
		Sets: []*nft.Set{
			{Name: "blocks-a", Interval: true, Ranges: ranges(3)},
			{Name: "blocks-b", Interval: true, Ranges: ranges(5), Comment: "of policy shop/p"},
			{Name: "pods", Elements: members(6), Entries: make([]nft.Entry, 2)},
		},
		Chains: []*nft.Chain{{Name: "short", Rules: make([]nft.Rule, 1)}, {Name: "long", Rules: make([]nft.Rule, 4)}},
	}, 11)
	want := []observe.Use{
		{Limit: observe.LimitConnections, Object: "entries of the connection table", Used: 7, Max: 10},
		{Limit: observe.LimitElements, Object: "elements of all sets, most of them in pods", Used: 16, Max: 1_000_000},
		{Limit: observe.LimitPrefixes, Object: "prefixes in set blocks-b (of policy shop/p)", Used: 5, Max: 60_000},
		{Limit: observe.LimitRefused, Object: "connections that were cut and are refused a revival", Used: 11, Max: 65_536},
		{Limit: observe.LimitRules, Object: "rules of all chains, most of them in long", Used: 5, Max: 100_000},
	}
	if diff := cmp.Diff(want, c.uses()); diff != "" {
		t.Errorf("uses (-want +got):\n%s", diff)
	}
}

func TestWhatWasAboveALimitInTheLastPassIsForgotten(t *testing.T) {
	var c counts
	c.take(&nft.Table{Sets: []*nft.Set{{Name: "blocks", Interval: true, Ranges: ranges(3)}}}, 1)
	c.take(&nft.Table{}, 0)
	for _, u := range c.uses() {
		if u.Used != 0 {
			t.Errorf("%s = %d of an empty table", u.Limit, u.Used)
		}
	}
}
