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

// What a frame to everybody may carry: nothing to a known pod, whatever the
// interface; where pods may be, groups only.
func TestWhatAFrameToEverybodyMayCarry(t *testing.T) {
	addr := netip.MustParseAddr
	p := &program.Program{Pods: []program.Pod{{Addr: addr("10.0.0.1")}, {Addr: addr("fd10::1")}}}
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
			f := program.Flow{Protocol: inet.UDP, Src: src, Dst: dst, DstPort: 53}
			for _, n := range []program.Node{{}, {OpenUnknown: true}, {FilterHook: true}} {
				n.Open, n.Bridges = []string{uplink}, true
				table, want, name := ruleset.Render(p, n), tt.otherwise, "prerouting"
				if !n.OpenUnknown {
					want = tt.closed
				}
				if n.FilterHook {
					name = "prerouting-filter"
				}
				if got := (walker{table: table, flow: f, state: nft.CtNew, in: tt.in, broadcast: true}).hook(table.Chain(name)); got != want {
					t.Errorf("closed %t: verdict %d, want %d", !n.OpenUnknown, got, want)
				}
				if got := (walker{table: table, flow: f, state: nft.CtNew, in: tt.in}).hook(table.Chain(name)); got != nft.Accept {
					t.Errorf("closed %t: to one receiver: verdict %d", !n.OpenUnknown, got)
				}
			}
		})
	}
}

// What goes to a group is judged where a bridge shows it first, whatever its frame
// and whether there was an answer.
func TestAGroupIsJudgedBeforeItsCopiesAreMade(t *testing.T) {
	addr := netip.MustParseAddr
	p := &program.Program{
		Pods: []program.Pod{{Addr: addr("10.0.0.1"), Egress: "none4"}, {Addr: addr("10.0.0.2")},
			{Addr: addr("fd10::1"), Egress: "none6"}, {Addr: addr("fd10::2")}},
		Chains: []*program.Chain{{Name: "none4", Direction: program.Egress, Family: inet.IPv4},
			{Name: "none6", Direction: program.Egress, Family: inet.IPv6}},
	}
	const quiet, shut = "br1", bridge
	var at []program.Attachment
	for _, pod := range p.Pods {
		at = append(at, program.Attachment{Link: quiet, Addr: pod.Addr}, program.Attachment{Link: shut, Addr: pod.Addr},
			program.Attachment{Link: "veth1", Addr: pod.Addr})
	}
	tests := []struct {
		name, in, src, dst string
		want               nft.VerdictKind
	}{
		{"an open pod, where nobody is isolated", quiet, "10.0.0.2", "224.0.0.251", nft.Accept},
		{"an open pod, where nobody is isolated, IPv6", quiet, "fd10::2", "ff02::fb", nft.Accept},
		{"an open pod, where somebody is", shut, "10.0.0.2", "224.0.0.251", nft.Drop},
		{"an open pod, where somebody is, to all", shut, "10.0.0.2", "255.255.255.255", nft.Drop},
		{"an open pod, where somebody is, IPv6", shut, "fd10::2", "ff02::fb", nft.Drop},
		{"an open pod, where somebody is, to one", shut, "10.0.0.2", "198.51.100.7", nft.Accept},
		{"a pod that may not send", quiet, "10.0.0.1", "224.0.0.251", nft.Drop},
		{"a pod that may not send, IPv6", quiet, "fd10::1", "ff02::fb", nft.Drop},
		{"a forged source", quiet, "10.0.0.3", "224.0.0.251", nft.Drop},
		{"a forged source, IPv6", quiet, "fd10::3", "ff02::fb", nft.Drop},
		{"an isolated pod with an interface of its own", "veth1", "10.0.0.2", "224.0.0.251", nft.Accept},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := program.Flow{Protocol: inet.UDP, Src: addr(tt.src), Dst: addr(tt.dst), DstPort: 5353}
			for _, n := range []program.Node{{}, {OpenUnknown: true}, {FilterHook: true}} {
				n.Open, n.ClosedBridges, n.Ingress, n.Attached = []string{uplink}, []string{quiet, shut}, []string{shut, "veth1"}, at
				table, name, states := ruleset.Render(p, n), "prerouting", []nft.CtState{nft.CtNew}
				if n.FilterHook {
					name, states = "prerouting-filter", append(states, nft.CtEstablished)
				}
				for _, state := range states {
					for _, framed := range []bool{true, false} {
						w := walker{table: table, flow: f, state: state, in: tt.in, broadcast: framed && tt.dst != "198.51.100.7"}
						if got := w.hook(table.Chain(name)); got != tt.want {
							t.Errorf("closed %t, %s, state %d, in a frame to everybody %t: verdict %d, want %d", !n.OpenUnknown, name, state, framed, got, tt.want)
						}
					}
				}
			}
		})
	}
}

// Only bridges give a frame to more than one receiver.
func TestWithoutABridgeThereIsNoChainAtPrerouting(t *testing.T) {
	for _, n := range []program.Node{{}, {OpenUnknown: true}, {FilterHook: true}} {
		for _, c := range ruleset.Render(&program.Program{}, n).Chains {
			if c.Base != nil && c.Base.Hook == "prerouting" {
				t.Errorf("%+v: there is the chain %s", n, c.Name)
			}
		}
	}
}

// A pod that comes to a bridge while no agent lives finds the chains there: the
// table of a node without bridges gets them, of the same kind and as closed.
func TestAPodOnABridgeBringsTheChainsToAnOldTable(t *testing.T) {
	for _, n := range []program.Node{{OpenUnknown: true}, {}, {FilterHook: true}} {
		old := ruleset.Render(&program.Program{}, n)
		n.ClosedBridges = []string{bridge}
		want, got := ruleset.Render(&program.Program{}, n), ruleset.WithMemory(old, n.ClosedBridges, nil)
		if got.String() != want.String() {
			t.Errorf("%+v:\n%s\nwant\n%s", n, got, want)
		}
		if again := ruleset.WithMemory(got, n.ClosedBridges, nil); again.String() != want.String() {
			t.Errorf("%+v: a second time it is\n%s", n, again)
		}
		if none := ruleset.WithMemory(old, nil, nil); none.String() != old.String() {
			t.Errorf("%+v: without a bridge it is\n%s", n, none)
		}
	}
}
