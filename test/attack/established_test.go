// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

func TestNothingOfOursLooksAtEveryForwardedPacket(t *testing.T) {
	eachWiring(t, stage.Setup{Args: []string{"--invalid-guard=off"}}, func(t *testing.T, w *world) {
		table, err := w.Conns[node1].Read()
		stage.Check(t, err)
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
		want := 2
		if w.Wiring == lab.Bridge {
			want = 3
		}
		if nat != want {
			t.Errorf("%d chains of type nat, want %d", nat, want)
		}
	})
}

// A connection gets its verdict with its first packet: later packets are not checked again, even if the
// verdict would now differ. New connections are.
func TestAConnectionIsJudgedOnce(t *testing.T) {
	eachWiring(t, stage.Setup{Args: []string{"--on-policy-change=keep"}}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Enforce(t, stage.Usual()...)
			flow := packet.Packet{Src: w.Addr(t, peer, v6), Dst: w.Addr(t, victim, v6), Proto: packet.UDP, SrcPort: 6000,
				DstPort: 80}
			w.One(t, probe.Probe{From: peer, Dst: flow.Dst, Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort})
			w.Enforce(t, stage.Policy("victim", "victim", `policyTypes: [Ingress]`))
			w.Denied(t, ruleset.CounterIngress, w.Ask(t, peer, victim, v6, packet.UDP, 80))
			before := w.Counters(t)
			var more []stage.Shot
			for range 100 {
				more = append(more, w.Raw(t, "next packet", peer, victim, flow))
			}
			w.Arrive(t, more...)
			if moved := w.Quiet(stage.Drops{}, w.Since(t, before)); len(moved) > 0 {
				t.Errorf("packets of a judged connection moved %v", moved)
			}
		})
	})
}
