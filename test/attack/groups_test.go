// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// groupsOf are addresses with more than one receiver on the bridge.
func groupsOf(v6 bool) []string {
	if v6 {
		return []string{"ff02::1", "ff02::fb"}
	}
	return []string{"224.0.0.1", "224.0.0.251", "255.255.255.255", "10.244.1.255"}
}

// fabrication is a flow to a group whose sender also sends the reply, with the group as the source.
type fabrication struct {
	from, to string
	flow     packet.Packet
	first    net.HardwareAddr // destination of the first packet's frame
	answer   net.HardwareAddr // and the answer's
}

// send sends the first packet, which is dropped for that reason, the reply, and the next packet, which is
// dropped for the same reason.
func (w *world) send(t *testing.T, f fabrication, want stage.Drops) {
	t.Helper()
	back := f.flow
	back.Src, back.Dst, back.SrcPort, back.DstPort, back.TTL = f.flow.Dst, f.flow.Src, f.flow.DstPort, f.flow.SrcPort, 64
	shot := func(name string, mac net.HardwareAddr, p packet.Packet) stage.Shot {
		return w.frame(t, fmt.Sprintf("%s to %s by a frame to %s", name, p.Dst, mac), f.from, f.to, mac, nil, p)
	}
	w.Stopped(t, want, shot("the first packet", f.first, f.flow))
	stage.Fire(t, []stage.Shot{shot("the answer", f.answer, back)})
	w.Stopped(t, want, shot("the next packet", broadcast, f.flow))
	w.Stopped(t, want, shot("the next packet", w.Prober().HardwareAddr(f.to), f.flow))
}

// each sends a fabrication to every group in every frame that may leave an entry: the node gets a copy of
// broadcast frames, and all frames to the bridge.
func (w *world) each(t *testing.T, f fabrication, want stage.Drops) {
	t.Helper()
	bridge := w.bridgeAddr(t)
	port := uint16(5300)
	for _, group := range groupsOf(f.flow.Src.Is6()) {
		for _, first := range []net.HardwareAddr{broadcast, bridge} {
			for _, answer := range []net.HardwareAddr{unused, bridge} {
				port++
				f.flow.Dst, f.flow.Proto, f.flow.SrcPort, f.flow.DstPort, f.flow.TTL = netip.MustParseAddr(group), packet.UDP, port, 5353, 1
				f.first, f.answer = first, answer
				w.send(t, f, want)
			}
		}
	}
}

// bridges are the lab's own bridge and that of the CNI plugin.
func bridges(s stage.Setup) []lab.Wiring {
	if s.CNIBin == "" {
		return []lab.Wiring{lab.Bridge}
	}
	return []lab.Wiring{lab.Bridge, lab.CNIBridge}
}

// eachBridge runs a test on bridged worlds with every set of base chains.
func eachBridge(t *testing.T, test func(t *testing.T, w *world)) {
	for name, args := range map[string][]string{"nat": {"--datapath=nat"}, "filter": {"--datapath=filter"},
		"unknown pods open": {"--datapath=nat", "--unknown-pods=open"}} {
		s := stage.Setup{Args: args, CNIBin: plugins(t)}
		for _, wiring := range bridges(s) {
			t.Run(string(wiring)+"/"+name, func(t *testing.T) { test(t, &world{stage.New(t, wiring, s)}) })
		}
	}
}

// With an entry for the flow, the reply makes it established; it then enters no nat chain and passes a
// filter chain.
func TestAForgedAnswerOpensNoGroup(t *testing.T) {
	eachBridge(t, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.each(t, fabrication{from: near, to: victim, flow: packet.Packet{Src: w.Addr(t, near, v6)}}, stage.Drops{ruleset.CounterUnknownPod: 1})
		})
	})
}

// The same for a pod that may not send: no pod is isolated for ingress there. Neither its own address nor
// another pod's helps.
func TestAForgedAnswerOpensNoWayOutByAGroup(t *testing.T) {
	eachBridge(t, func(t *testing.T, w *world) {
		w.Enforce(t, stage.Policy("jailed", "jailed", `policyTypes: [Egress]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, src := range []struct {
				name string
				addr netip.Addr
				want stage.Drops
			}{
				{"its own address", w.Addr(t, jailed, v6), stage.Drops{ruleset.CounterEgress: 1}},
				{"a neighbour's", w.Addr(t, near, v6), stage.Drops{ruleset.CounterSpoofedFrame: 1}},
				{"an unassigned one", stage.Pick(v6, "fd00:244:1::99", "10.244.1.99"), stage.Drops{ruleset.CounterSpoofedFrame: 1}},
			} {
				t.Run(src.name, func(t *testing.T) {
					w.each(t, fabrication{from: jailed, to: open, flow: packet.Packet{Src: src.addr}}, src.want)
				})
			}
		})
	})
}

// Without a bridge the node's IP layer forwards no broadcast frame, and keeps no connection of it.
func TestWithoutABridgeAFrameToEverybodyIsTheBeginningOfNothing(t *testing.T) {
	for _, d := range []string{"nat", "filter"} {
		t.Run(d, func(t *testing.T) {
			w := &world{stage.New(t, lab.Routed, stage.Setup{Args: []string{"--datapath=" + d}})}
			w.Enforce(t, stage.Policy("jailed", "jailed", `policyTypes: [Ingress, Egress]`))
			table, err := w.Conns[node1].Read()
			stage.Check(t, err)
			if slices.ContainsFunc(table.Chains, func(c *nft.Chain) bool { return c.Base != nil && c.Base.Hook == "prerouting" }) {
				t.Error("there is a chain that only bridges need")
			}
			stage.Families(t, func(t *testing.T, v6 bool) {
				for i, mac := range []net.HardwareAddr{broadcast, group} {
					for _, proto := range []packet.Protocol{packet.UDP, packet.TCP} {
						first := w.first(t, jailed, v6, proto, uint16(7400+i))
						w.Stopped(t, stage.Drops{}, w.through(t, "eth0", mac, jailed, first))
						w.Stopped(t, stage.Drops{ruleset.CounterEgress: 1}, w.answer(t, jailed, first))
						w.Stopped(t, stage.Drops{ruleset.CounterIngress: 1}, w.Raw(t, "the next packet", near, jailed, first))
					}
				}
			})
		})
	}
}
