// SPDX-License-Identifier: Apache-2.0

package nft_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/nft"
)

// What a frame to everybody may carry: nothing to a known pod, whatever the
// interface; where pods may be, groups only.
func TestWhatAFrameToEverybodyMayCarry(t *testing.T) {
	addr := netip.MustParseAddr
	p := &filter.Program{Pods: []filter.Pod{{Addr: addr("10.0.0.1")}, {Addr: addr("fd10::1")}}}
	tests := []struct {
		name, in, dst     string
		closed, otherwise nft.VerdictKind
	}{
		{"a pod", bridge, "10.0.0.1", nft.Drop, nft.Drop},
		{"a pod, IPv6", bridge, "fd10::1", nft.Drop, nft.Drop},
		{"a pod, from outside", uplink, "10.0.0.1", nft.Drop, nft.Drop},
		{"nobody's address", bridge, "10.0.0.9", nft.Drop, nft.Accept},
		{"nobody's address, IPv6", bridge, "fd10::9", nft.Drop, nft.Accept},
		{"nobody's address, from outside", uplink, "10.0.0.9", nft.Accept, nft.Accept},
		{"everybody", bridge, "255.255.255.255", nft.Accept, nft.Accept},
		{"almost everybody", bridge, "255.255.255.254", nft.Drop, nft.Accept},
		{"a group", bridge, "224.0.0.251", nft.Accept, nft.Accept},
		{"the last group", bridge, "239.255.255.255", nft.Accept, nft.Accept},
		{"a group, IPv6", bridge, "ff02::fb", nft.Accept, nft.Accept},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := addr(tt.dst)
			src := addr("10.0.0.2")
			if dst.Is6() {
				src = addr("fd10::2")
			}
			f := filter.Flow{Protocol: filter.UDP, Src: src, Dst: dst, DstPort: 53}
			for _, n := range []nft.Node{{Closed: true}, {}, {Closed: true, FilterHook: true}} {
				n.Open = []string{uplink}
				table, want, name := nft.Render(p, n), tt.otherwise, "prerouting"
				if n.Closed {
					want = tt.closed
				}
				if n.FilterHook {
					name = "prerouting-filter"
				}
				if got := (walker{table, f, nft.CtNew, tt.in, "", true}).hook(table.Chain(name)); got != want {
					t.Errorf("closed %t: verdict %d, want %d", n.Closed, got, want)
				}
				if got := (walker{table, f, nft.CtNew, tt.in, "", false}).hook(table.Chain(name)); got != nft.Accept {
					t.Errorf("closed %t: to one receiver: verdict %d", n.Closed, got)
				}
			}
		})
	}
}
