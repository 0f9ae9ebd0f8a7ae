// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
)

// TableName is the name of podwall's tables: that of family inet in which packets
// are judged, and the small ones of the families ip and ip6 (see RenderPorts) and
// bridge (see RenderTags).
const TableName = "podwall"

// Table names the table in which packets are judged.
func Table() nft.TableID { return nft.TableID{Family: nft.FamilyINet, Name: TableName} }

// PortTable names the table that binds addresses of a family to bridge ports.
func PortTable(f inet.Family) nft.TableID {
	return nft.TableID{Family: nft.FamilyFor(f), Name: TableName}
}

// TagTable names the table that drops frames with stacked VLAN tags.
func TagTable() nft.TableID { return nft.TableID{Family: nft.FamilyBridge, Name: TableName} }

// Small names the tables beside the one in which packets are judged.
func Small() []nft.TableID {
	return []nft.TableID{PortTable(inet.IPv4), PortTable(inet.IPv6), TagTable()}
}

// Ours reports whether a table is podwall's, or the mark of a node that is open.
func Ours(t nft.TableID) bool { return t == Table() || t == OpenTable() || slices.Contains(Small(), t) }

// Open connects to the nftables of the network namespace that netns refers to, or
// of the calling thread if netns is 0.
func Open(netns int) (*nft.Conn, error) { return nft.Open(netns, Table()) }

// Counters returns the packets that our tables dropped, by the name of the counter.
func Counters(c *nft.Conn) (map[string]uint64, error) {
	packets := map[string]uint64{}
	for _, t := range append(Small(), Table()) {
		list, err := c.Of(t).Counters()
		if err != nil {
			return packets, err
		}
		for name, n := range list {
			packets[name] += n
		}
	}
	return packets, nil
}
