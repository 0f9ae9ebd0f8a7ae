// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/nft"
)

func TestNothingOfOursLooksAtEveryForwardedPacket(t *testing.T) {
	eachWiring(t, setup{args: []string{"--invalid-guard=off"}}, func(t *testing.T, w *world) {
		table, err := w.conns[node1].Read()
		check(t, err)
		nat := 0
		for _, c := range table.Chains {
			switch {
			case c.Base == nil:
			case c.Base.Type == "nat":
				nat++
			case c.Base.Hook != "input": // there the untracked are judged, on their way to the node
				t.Errorf("chain %s of type %s is at hook %s", c.Name, c.Base.Type, c.Base.Hook)
			}
		}
		if nat != 2 {
			t.Errorf("%d chains of type nat, want 2", nat)
		}
	})
}

// A connection is judged by its first packet: what comes later is not asked
// again, even if the answer were another by now. New ones are.
func TestAConnectionIsJudgedOnce(t *testing.T) {
	eachWiring(t, setup{}, func(t *testing.T, w *world) {
		families(t, func(t *testing.T, v6 bool) {
			w.apply(t, usual()...)
			flow := packet.Packet{Src: w.addr(t, peer, v6), Dst: w.addr(t, victim, v6), Proto: packet.UDP, SrcPort: 6000, DstPort: 80}
			w.one(t, probe.Probe{From: peer, Dst: flow.Dst, Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort})
			w.apply(t, policy("victim", "victim", `policyTypes: [Ingress]`))
			w.denied(t, nft.CounterIngress, w.ask(t, peer, victim, v6, packet.UDP, 80))
			before := w.counters(t)
			var more []shot
			for range 100 {
				more = append(more, w.raw(t, "next packet", peer, victim, flow))
			}
			w.arrive(t, more...)
			if moved := w.quiet(drops{}, w.since(t, before)); len(moved) > 0 {
				t.Errorf("packets of a judged connection moved %v", moved)
			}
		})
	})
}
