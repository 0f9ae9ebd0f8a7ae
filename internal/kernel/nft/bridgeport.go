// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// MatchBridgePort matches packets that came in by a port of a bridge; if Other
// is set, by any port but that one.
type MatchBridgePort struct{ Other string }

// The layout and bits of xtables' struct xt_physdev_info.
const (
	ifNameLen    = 16
	physdevFlags = 4 * ifNameLen // two bytes: what is inverted, and what is asked
	physdevSize  = 72            // as aligned by the kernel
	physdevIn    = 1 << 0
	physdevHasIn = 1 << 3
)

func (s MatchBridgePort) encode(e *encoder) {
	info := make(xt.Unknown, physdevSize)
	info[physdevFlags+1] = physdevHasIn
	if s.Other != "" {
		copy(info, s.Other)
		for i := range len(s.Other) + 1 {
			info[ifNameLen+i] = 0xff // the name as a whole
		}
		info[physdevFlags], info[physdevFlags+1] = physdevIn, physdevHasIn|physdevIn
	}
	e.add(&expr.Match{Name: "physdev", Info: &info})
}

// text is what nft prints. It cannot read it back.
func (s MatchBridgePort) text() string {
	if s.Other == "" {
		return `xt match "physdev" /* from a bridge port */`
	}
	return fmt.Sprintf(`xt match "physdev" /* from another bridge port than %s */`, s.Other)
}
