// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// serve adds a Service with port 80 for the victim's port 8080.
func (w *world) serve(t *testing.T, proto packet.Protocol) {
	t.Helper()
	w.Svc = nil
	for _, v6 := range []bool{false, true} {
		w.Svc = append(w.Svc, lab.Service{Front: netip.AddrPortFrom(front(v6), 80), Proto: proto,
			Backends: []netip.AddrPort{netip.AddrPortFrom(w.Addr(t, victim, v6), 8080)}})
	}
}

func front(v6 bool) netip.Addr { return stage.Pick(v6, "fd00:96::10", "10.96.0.10") }

func TestAPodReachesItselfThroughItsServiceUnderDenyAll(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		w.Hairpin(t, victim)
		for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
			w.serve(t, proto)
			w.Enforce(t, stage.Policy("all", "", `policyTypes: [Ingress, Egress]`))
			stage.Families(t, func(t *testing.T, v6 bool) {
				got := w.One(t, probe.Probe{From: victim, Dst: front(v6), Proto: proto, DstPort: 80})
				if got.Endpoint != victim || got.Dst.Port() != 8080 {
					t.Errorf("arrived at %s port %d, want %s port 8080", got.Endpoint, got.Dst.Port(), victim)
				}
				w.Denied(t, ruleset.CounterEgress, trial.Question{From: peer, To: victim, Dst: front(v6), Proto: proto, Port: 80})
				w.Denied(t, ruleset.CounterIngress, trial.Question{From: near, To: victim, Dst: front(v6), Proto: proto, Port: 80})
			})
		}
	})
}

func TestServiceTrafficIsJudgedOnThePodsPortAndTheRealSource(t *testing.T) {
	for name, options := range map[string]lab.ServiceOptions{"plain": {}, "masquerade-all": {MasqueradeAll: true}} {
		t.Run(name, func(t *testing.T) {
			eachDatapath(t, stage.Setup{Services: options}, func(t *testing.T, w *world) {
				w.serve(t, packet.TCP)
				w.ports(t, "8080")
				stage.Families(t, func(t *testing.T, v6 bool) {
					w.Allowed(t, w.call(peer, v6), w.call(jailed, v6))
					w.Denied(t, ruleset.CounterIngress, w.call(near, v6), w.call(far, v6))
					w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, victim, v6, packet.TCP, 80))
				})
				w.ports(t, "80") // the Service's port, which no packet has at the pod
				stage.Families(t, func(t *testing.T, v6 bool) {
					w.Denied(t, ruleset.CounterIngress, w.call(peer, v6), w.call(near, v6))
					w.Denied(t, ruleset.CounterEgress, w.call(jailed, v6))
				})
			})
		})
	}
}

// ports lets the peer and the jailed pod reach the victim at one port.
func (w *world) ports(t *testing.T, port string) {
	t.Helper()
	w.Enforce(t,
		stage.Policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: `+port+`}]}]`),
		stage.Policy("jailed", "jailed", `policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: victim}}}], ports: [{port: `+port+`}]}]`))
}

// call sends a question to the Service.
func (w *world) call(from string, v6 bool) trial.Question {
	return trial.Question{From: from, To: victim, Dst: front(v6), Proto: packet.TCP, Port: 80}
}
