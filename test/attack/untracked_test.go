// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// untrackDNS loads the rules of a node-local DNS cache: packets to UDP port 53 are not tracked.
func (w *world) untrackDNS(t *testing.T, node string) {
	t.Helper()
	rule := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 53}},
		&expr.Notrack{},
	}
	o := w.other(t, node)
	o.add("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, rule)
	o.add("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, -300, rule)
	stage.Check(t, o.conn.Flush())
}

func TestUntrackedPacketsAreJudged(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		w.untrackDNS(t, node1)
		guard, filter := ruleset.CounterInvalid, w.Filter()
		stage.Families(t, func(t *testing.T, v6 bool) {
			dns := func(from, to string) trial.Question { return w.Ask(t, from, to, v6, packet.UDP, 53) }
			w.Denied(t, ruleset.CounterEgress, dns(jailed, node1))
			w.Allowed(t, dns(near, node1), dns(far, node1), dns(node1, victim), dns(near, open))
			if filter {
				w.Denied(t, ruleset.CounterIngress, dns(near, victim), dns(far, victim))
				w.Denied(t, ruleset.CounterEgress, dns(jailed, open), dns(jailed, yonder))
				return
			}
			w.Denied(t, guard, dns(near, victim), dns(far, victim), dns(jailed, open), dns(jailed, yonder))
		})
		w.Enforce(t, stage.Usual()[0], stage.Policy("jailed", "jailed", `policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			dns := func(from, to string) trial.Question { return w.Ask(t, from, to, v6, packet.UDP, 53) }
			w.Allowed(t, dns(jailed, node1))
			w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, node1, v6, packet.UDP, 54), w.Ask(t, jailed, node1, v6, packet.TCP, 53))
		})
	})
}
