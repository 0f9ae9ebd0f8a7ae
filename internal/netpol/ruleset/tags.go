// SPDX-License-Identifier: Apache-2.0

package ruleset

import "github.com/podwall/podwall/internal/kernel/nft"

const (
	chainStacked = "stacked-tags"
	// CounterStacked counts frames with stacked VLAN tags.
	CounterStacked = "drop-stacked-tags"
	// priorityStacked is before whatever else a bridge forwards.
	priorityStacked = -300
)

// RenderTags returns the table of family bridge. A bridge shows IP packets behind
// one VLAN tag to the IP hooks, while a receiver takes off any number of tags with
// VLAN 0. A frame with two of them thus meets no chain of family inet. The table
// drops frames that have another tag behind one with VLAN 0; nobody has a use for
// those.
func RenderTags() *nft.Table {
	c := &nft.Chain{Name: chainStacked, Base: &nft.Base{Type: "filter", Hook: "forward", Priority: priorityStacked}}
	for _, etherType := range []uint16{0x8100, 0x88a8} { // 802.1Q, 802.1ad
		c.Add("", nft.MatchTagBehind{EtherType: etherType}, nft.Count{Counter: CounterStacked}, nft.Verdict{Kind: nft.Drop})
	}
	return &nft.Table{TableID: TagTable(), Counters: []string{CounterStacked}, Chains: []*nft.Chain{c}}
}
