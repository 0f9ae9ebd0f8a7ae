// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"slices"

	"github.com/podwall/podwall/internal/kernel/nft"
)

// TableName is the name of podwall's tables: that of family inet in which packets
// are judged, and the small one of family bridge (see RenderBridge).
const TableName = "podwall"

// Table names the table in which packets are judged.
func Table() nft.TableID { return nft.TableID{Family: nft.FamilyINet, Name: TableName} }

// BridgeTable names the table that binds addresses to the ports of bridges.
func BridgeTable() nft.TableID { return nft.TableID{Family: nft.FamilyBridge, Name: TableName} }

// Tables names all of them, the one in which packets are judged last.
func Tables() []nft.TableID { return []nft.TableID{BridgeTable(), Table()} }

// Ours reports whether a table is podwall's, or the mark of a node that is open.
func Ours(t nft.TableID) bool { return t == OpenTable() || slices.Contains(Tables(), t) }

// Open connects to the nftables of the network namespace that netns refers to, or
// of the calling thread if netns is 0.
func Open(netns int) (*nft.Conn, error) { return nft.Open(netns, Table()) }

// Counters returns the packets that our tables dropped, by the name of the counter.
func Counters(c *nft.Conn) (map[string]uint64, error) {
	packets := map[string]uint64{}
	for _, t := range Tables() {
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
