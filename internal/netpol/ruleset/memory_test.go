// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// On a bridge the next pod with an address is behind the same interface as the
// last one: without what that one was allowed, both ways.
func TestWhoseAddressIsTakenAwayMayNotSpeakAndIsNotReached(t *testing.T) {
	for _, names := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd10::1", "fd10::2"}} {
		gone, stays := netip.MustParseAddr(names[0]), netip.MustParseAddr(names[1])
		p := &program.Program{Pods: []program.Pod{{Addr: gone}, {Addr: stays}}}
		node := program.Node{Open: []string{uplink},
			Attached: []program.Attachment{{Link: bridge, Addr: gone}, {Link: bridge, Addr: stays}}}
		before := ruleset.Render(p, node)
		after := ruleset.WithoutPods(before, []netip.Addr{gone})
		outside := netip.MustParseAddr("203.0.113.1")
		if gone.Is6() {
			outside = netip.MustParseAddr("2001:db8::1")
		}
		for _, f := range []program.Flow{{Src: gone, Dst: outside}, {Src: outside, Dst: gone}, {Src: stays, Dst: outside},
			{Src: outside, Dst: stays}} {
			in, out := bridge, uplink
			if f.Src == outside {
				in, out = out, in
			}
			want := nft.Accept
			if f.Src == gone || f.Dst == gone {
				want = nft.Drop
			}
			f.Protocol, f.DstPort = inet.UDP, 53
			for table, want := range map[*nft.Table]nft.VerdictKind{before: nft.Accept, after: want} {
				if got := (walker{table: table, flow: f, state: nft.CtNew, in: in, out: out}).hook(table.Chain("postrouting")); got != want {
					t.Errorf("from %s to %s: verdict %d, want %d", f.Src, f.Dst, got, want)
				}
			}
		}
	}
}
