// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// leaving masquerades traffic of pods that leaves the cluster, as ip-masq-agent does: not towards private
// ranges.
const leaving = `table inet hide {
	chain postrouting {
		type nat hook postrouting priority 100
		ip saddr 10.244.0.0/16 ip daddr != { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } masquerade
		ip6 saddr fd00:244::/32 ip6 daddr != fc00::/7 masquerade
	}
}
`

// always masquerades between pods, too.
const always = `table inet hide {
	chain postrouting {
		type nat hook postrouting priority 100
		ip saddr 10.244.0.0/16 masquerade
		ip6 saddr fd00:244::/32 masquerade
	}
}
`

func TestPoliciesSeeThePodBehindAMasqueradingNode(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.load(t, node1, leaving)
		w.Enforce(t, append(stage.Usual(), stage.Policy("out", "victim", `policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.10/32}}, {ipBlock: {cidr: "2001:db8:cafe::a/128"}}]}]`))...)
		stage.Families(t, func(t *testing.T, v6 bool) {
			got := w.One(t, probe.Probe{From: victim, Dst: w.Addr(t, out, v6), Proto: packet.TCP, DstPort: 443})
			if want := w.Addr(t, node1, v6); got.Src.Addr() != want {
				t.Errorf("the host outside saw %s, want %s: nothing is masqueraded", got.Src.Addr(), want)
			}
			w.Allowed(t, w.Ask(t, victim, out, v6, packet.UDP, 443), w.Ask(t, near, out, v6, packet.TCP, 443),
				w.Ask(t, near, yonder, v6, packet.TCP, 443))
			w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, out, v6, packet.TCP, 443),
				w.Ask(t, victim, yonder, v6, packet.TCP, 443))
		})
	})
}

// A packet gets its verdict before its source is masqueraded, also between pods of one node.
func TestPoliciesSeeThePodBehindANodeThatHidesPodsFromEachOther(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		w.load(t, node1, always)
		stage.Families(t, func(t *testing.T, v6 bool) {
			got := w.One(t, probe.Probe{From: peer, Dst: w.Addr(t, victim, v6), Proto: packet.TCP, DstPort: 80})
			if got.Src.Addr() == w.Addr(t, peer, v6) {
				t.Error("the victim saw the peer: nothing is masqueraded")
			}
			w.Allowed(t, w.Ask(t, peer, victim, v6, packet.UDP, 80))
			w.Denied(t, ruleset.CounterIngress, w.Ask(t, near, victim, v6, packet.TCP, 80),
				w.Ask(t, peer, victim, v6, packet.TCP, 81))
			w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, open, v6, packet.TCP, 80))
		})
	})
}
