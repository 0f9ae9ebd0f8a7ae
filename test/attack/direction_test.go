// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

func TestWhatOneDirectionAllowsDoesNotOpenTheOther(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		from := func(a, b string, v6 bool) trial.Question { return w.Ask(t, a, b, v6, packet.TCP, 80) }
		t.Run("egress to all", func(t *testing.T) {
			w.Enforce(t, stage.Policy("p", "victim", `policyTypes: [Ingress, Egress], ingress: [], egress: [{}]`))
			stage.Families(t, func(t *testing.T, v6 bool) {
				w.Denied(t, ruleset.CounterIngress, from(near, victim, v6), from(far, victim, v6), from(peer, victim, v6),
					from(out, victim, v6))
				w.Allowed(t, from(victim, near, v6), from(victim, far, v6), from(victim, out, v6), from(victim, node1, v6))
			})
		})
		t.Run("ingress from all", func(t *testing.T) {
			w.Enforce(t, stage.Policy("p", "victim", `policyTypes: [Ingress, Egress], ingress: [{}], egress: []`))
			stage.Families(t, func(t *testing.T, v6 bool) {
				w.Denied(t, ruleset.CounterEgress, from(victim, near, v6), from(victim, far, v6), from(victim, out, v6),
					from(victim, node1, v6))
				w.Allowed(t, from(near, victim, v6), from(far, victim, v6), from(out, victim, v6), from(node1, victim, v6))
			})
		})
		t.Run("egress to all into a pod that is closed for ingress", func(t *testing.T) {
			w.Enforce(t, stage.Policy("p", "peer", `policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]`),
				stage.Policy("v", "victim", `policyTypes: [Ingress]`))
			stage.Families(t, func(t *testing.T, v6 bool) {
				w.Denied(t, ruleset.CounterIngress, from(peer, victim, v6))
				w.Allowed(t, from(victim, peer, v6), from(peer, open, v6))
			})
		})
		t.Run("ingress from all out of a pod that may not send", func(t *testing.T) {
			w.Enforce(t, stage.Policy("p", "peer", `policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]`),
				stage.Policy("j", "jailed", `policyTypes: [Egress]`))
			stage.Families(t, func(t *testing.T, v6 bool) {
				w.Denied(t, ruleset.CounterEgress, from(jailed, peer, v6), from(jailed, node1, v6), from(jailed, node2, v6),
					from(jailed, out, v6))
				w.Allowed(t, from(peer, jailed, v6))
			})
		})
	})
}
