// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/nft"
	"github.com/podwall/podwall/internal/trial"
)

// untrackDNS loads what a DNS cache on the node brings: packets to UDP port 53
// are not tracked.
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
	check(t, o.conn.Flush())
}

func TestUntrackedPacketsAreJudged(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		w.untrackDNS(t, node1)
		guard, filter := nft.CounterGuard, w.filter()
		families(t, func(t *testing.T, v6 bool) {
			dns := func(from, to string) trial.Question { return w.ask(t, from, to, v6, packet.UDP, 53) }
			w.denied(t, nft.CounterEgress, dns(jailed, node1))
			w.allowed(t, dns(near, node1), dns(far, node1), dns(node1, victim), dns(near, open))
			if filter {
				w.denied(t, nft.CounterIngress, dns(near, victim), dns(far, victim))
				w.denied(t, nft.CounterEgress, dns(jailed, open), dns(jailed, yonder))
				return
			}
			w.denied(t, guard, dns(near, victim), dns(far, victim), dns(jailed, open), dns(jailed, yonder))
		})
		w.apply(t, usual()[0], policy("jailed", "jailed", `policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]`))
		families(t, func(t *testing.T, v6 bool) {
			dns := func(from, to string) trial.Question { return w.ask(t, from, to, v6, packet.UDP, 53) }
			w.allowed(t, dns(jailed, node1))
			w.denied(t, nft.CounterEgress, w.ask(t, jailed, node1, v6, packet.UDP, 54), w.ask(t, jailed, node1, v6, packet.TCP, 53))
		})
	})
}

// filter reports whether the agents judge in filter chains.
func (w *world) filter() bool {
	return strings.Contains(strings.Join(w.setup.args, " "), "datapath=filter")
}
