// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A new pod may speak from the moment at which it is known who judges it, and
// not earlier: between the transactions of a change it would be open.
func TestAPodMaySpeakWhenItIsJudgedAndNotBefore(t *testing.T) {
	addr := netip.MustParseAddr("10.244.1.5")
	node := program.Node{Open: []string{"eth0"}}
	before := Render(&program.Program{}, node)
	node.Attached = []program.Attachment{{Link: "veth5", Addr: addr}}
	after := Render(&program.Program{
		Pods:   []program.Pod{{Addr: addr, Name: "a/b", Egress: "egress4-x"}},
		Chains: []*program.Chain{{Name: "egress4-x", Direction: program.Egress, Family: inet.IPv4}},
	}, node)
	for name, ops := range map[string][]nft.Op{"comes": nft.Diff(before, after), "goes": nft.Diff(after, before)} {
		if !nft.InStages(ops) {
			t.Fatalf("%s: not in stages: %v", name, ops)
		}
		stages := map[string]int{}
		for _, op := range ops {
			if op.Set != nil {
				stages[op.Set.Name] = op.Kind.Stage()
			}
		}
		if stages["iface-source4"] != stages["pod-egress4"] || stages["pod-egress4"] != 1 {
			t.Errorf("%s: iface-source4 changes in stage %d, pod-egress4 in stage %d, want 1 for both",
				name, stages["iface-source4"], stages["pod-egress4"])
		}
	}
}
