// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

func TestASwitchedOffFamilyIsClosedForIsolatedPodsAndOpenForOthers(t *testing.T) {
	for _, off := range []struct {
		flag string
		v6   bool
	}{{"--enable-ipv6=false", true}, {"--enable-ipv4=false", false}} {
		t.Run(off.flag, func(t *testing.T) {
			eachWiring(t, stage.Setup{Args: []string{off.flag}}, func(t *testing.T, w *world) {
				w.Enforce(t, stage.Usual()[0], stage.Policy("jailed", "jailed", `policyTypes: [Egress], egress: [{}]`))
				for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
					w.Denied(t, ruleset.CounterIngress, w.Ask(t, peer, victim, off.v6, proto, 80), w.Ask(t, far, victim, off.v6, proto, 80))
					w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, open, off.v6, proto, 80), w.Ask(t, jailed, yonder, off.v6, proto, 80),
						w.Ask(t, jailed, node1, off.v6, proto, 80), w.Ask(t, jailed, out, off.v6, proto, 80))
					w.Allowed(t, w.Ask(t, peer, victim, !off.v6, proto, 80), w.Ask(t, jailed, open, !off.v6, proto, 80))
					w.Allowed(t, w.Ask(t, near, open, off.v6, proto, 80), w.Ask(t, near, yonder, off.v6, proto, 80),
						w.Ask(t, node1, victim, off.v6, proto, 80), w.Ask(t, near, node1, off.v6, proto, 80))
				}
				if off.v6 {
					w.Denied(t, ruleset.CounterSpoofed, w.podLocal(t, jailed).to(w.nodeLocal(t, jailed))...)
				}
			})
		})
	}
}
