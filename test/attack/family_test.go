// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/nft"
)

func TestASwitchedOffFamilyIsClosedForIsolatedPodsAndOpenForOthers(t *testing.T) {
	for _, off := range []struct {
		flag string
		v6   bool
	}{{"--enable-ipv6=false", true}, {"--enable-ipv4=false", false}} {
		t.Run(off.flag, func(t *testing.T) {
			eachWiring(t, setup{args: []string{off.flag}}, func(t *testing.T, w *world) {
				w.apply(t, usual()[0], policy("jailed", "jailed", `policyTypes: [Egress], egress: [{}]`))
				for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
					w.denied(t, nft.CounterIngress, w.ask(t, peer, victim, off.v6, proto, 80), w.ask(t, far, victim, off.v6, proto, 80))
					w.denied(t, nft.CounterEgress, w.ask(t, jailed, open, off.v6, proto, 80), w.ask(t, jailed, yonder, off.v6, proto, 80),
						w.ask(t, jailed, node1, off.v6, proto, 80), w.ask(t, jailed, out, off.v6, proto, 80))
					w.allowed(t, w.ask(t, peer, victim, !off.v6, proto, 80), w.ask(t, jailed, open, !off.v6, proto, 80))
					w.allowed(t, w.ask(t, near, open, off.v6, proto, 80), w.ask(t, near, yonder, off.v6, proto, 80),
						w.ask(t, node1, victim, off.v6, proto, 80), w.ask(t, near, node1, off.v6, proto, 80))
				}
				if off.v6 {
					w.denied(t, nft.CounterSource, w.podLocal(t, jailed).to(w.nodeLocal(t, jailed))...)
				}
			})
		})
	}
}
