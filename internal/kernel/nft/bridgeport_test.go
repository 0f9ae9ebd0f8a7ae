// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// The bytes of struct xt_physdev_info: the name, its mask with the final zero,
// the same for the output, what is inverted (1: the input), and what is asked
// (1: which input, 8: whether there is one).
func TestThePhysdevMatch(t *testing.T) {
	for other, want := range map[string]string{
		"": strings.Repeat("00", 65) + "08" + strings.Repeat("00", 6),
		"veth5": "7665746835" + strings.Repeat("00", 11) + strings.Repeat("ff", 6) + strings.Repeat("00", 10) + strings.Repeat("00",
			32) + "0109" + strings.Repeat("00", 6),
	} {
		list := encodeRule(Rule{Statements: []Statement{MatchBridgePort{Other: other}}})
		m, ok := list[0].(*expr.Match)
		if !ok || m.Name != "physdev" || m.Rev != 0 {
			t.Fatalf("got %+v", list[0])
		}
		if got := fmt.Sprintf("%x", []byte(*m.Info.(*xt.Unknown))); got != want {
			t.Errorf("%q: %s, want %s", other, got, want)
		}
	}
}
