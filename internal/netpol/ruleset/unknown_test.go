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

// On a closed node nobody who is not known speaks or is spoken to; on an open
// one a known pod's interface is still no place to forge addresses.
func TestWhoIsNotKnown(t *testing.T) {
	addr := netip.MustParseAddr
	open, isolated, bridged, stranger, outside := addr("10.0.0.1"), addr("10.0.0.2"), addr("10.0.0.3"), addr("10.0.0.9"), addr("198.51.100.7")
	p := &program.Program{
		Pods: []program.Pod{{Addr: open}, {Addr: isolated, Ingress: "none-in", Egress: "none-out"}, {Addr: bridged}},
		Chains: []*program.Chain{
			{Name: "none-in", Direction: program.Ingress, Family: inet.IPv4},
			{Name: "none-out", Direction: program.Egress, Family: inet.IPv4},
		},
	}
	node := program.Node{Open: []string{uplink, "docker0"}, Ingress: []string{"veth-i"}, Egress: []string{"veth-i"},
		Attached: []program.Attachment{
			{Link: "veth-o", Addr: open}, {Link: "veth-i", Addr: isolated}, {Link: bridge, Addr: bridged}}}
	local, group := addr("169.254.7.7"), addr("224.0.0.251")
	tests := []struct {
		name              string
		in, out           string
		src, dst          netip.Addr
		fromNode, toNode  bool
		closed, otherwise nft.VerdictKind
	}{
		{"outside to a pod", uplink, "veth-o", outside, open, false, false, nft.Accept, nft.Accept},
		{"a pod to outside", "veth-o", uplink, open, outside, false, false, nft.Accept, nft.Accept},
		{"outside to a stranger", uplink, "veth-new", outside, stranger, false, false, nft.Drop, nft.Accept},
		{"a stranger to outside", "veth-new", uplink, stranger, outside, false, false, nft.Drop, nft.Accept},
		{"a stranger to a pod", "veth-new", "veth-o", stranger, open, false, false, nft.Drop, nft.Accept},
		{"a stranger to the node", "veth-new", "", stranger, outside, false, true, nft.Drop, nft.Accept},
		{"the node to a stranger", "", "veth-new", outside, stranger, true, false, nft.Accept, nft.Accept},
		{"another bridge's own business", "", "docker0", stranger, local, false, false, nft.Accept, nft.Accept},
		{"another bridge to outside", "docker0", uplink, stranger, outside, false, false, nft.Accept, nft.Accept},
		{"a pod as another pod", "veth-o", bridge, isolated, bridged, false, false, nft.Drop, nft.Drop},
		{"a pod as the receiver", "veth-o", "veth-i", isolated, isolated, false, false, nft.Drop, nft.Drop},
		{"a pod as nobody", "veth-o", uplink, stranger, outside, false, false, nft.Drop, nft.Drop},
		{"a pod as nobody, to the node", "veth-o", "", stranger, outside, false, true, nft.Drop, nft.Drop},
		{"on a bridge, as a pod elsewhere", "", bridge, open, bridged, false, false, nft.Drop, nft.Drop},
		{"on a bridge, as nobody", "", bridge, stranger, bridged, false, false, nft.Drop, nft.Drop},
		{"on a bridge, as itself", "", bridge, bridged, bridged, false, false, nft.Accept, nft.Accept},
		{"on a bridge, to a stranger", "", bridge, bridged, stranger, false, false, nft.Drop, nft.Accept},
		{"an open pod to its link", "", bridge, bridged, group, false, false, nft.Accept, nft.Accept},
		{"an open pod, link-local", "", bridge, local, bridged, false, false, nft.Accept, nft.Accept},
		{"an open pod, link-local to the node", "veth-o", "", local, outside, false, true, nft.Accept, nft.Accept},
		{"an isolated pod, link-local to the node", "veth-i", "", local, outside, false, true, nft.Drop, nft.Drop},
		{"link-local to an isolated pod", "veth-o", "veth-i", open, local, false, false, nft.Drop, nft.Drop},
		{"a stranger, link-local", "veth-new", "", local, outside, false, true, nft.Drop, nft.Accept},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, node.OpenUnknown = range []bool{false, true} {
				table, want := ruleset.Render(p, node), tt.otherwise
				if !node.OpenUnknown {
					want = tt.closed
				}
				base := table.Chain("postrouting")
				if tt.toNode {
					base = table.Chain("input")
				}
				f := program.Flow{Protocol: inet.UDP, Src: tt.src, Dst: tt.dst, DstPort: 53, FromNode: tt.fromNode, ToNode: tt.toNode}
				if got := (walker{table: table, flow: f, state: nft.CtNew, in: tt.in, out: tt.out}).hook(base); got != want {
					t.Errorf("open %t: verdict %d, want %d", node.OpenUnknown, got, want)
				}
			}
		})
	}
}
