// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

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

// leave lets the jailed pod reach some addresses at one port of each protocol,
// and nothing else.
func leave(port, cidr4, cidr6 string) string {
	return stage.Policy("jailed", "jailed", `policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: `+cidr4+`}}, {ipBlock: {cidr: "`+cidr6+`"}}],
  ports: [{port: `+port+`}, {port: `+port+`, protocol: UDP}, {port: `+port+`, protocol: SCTP}]}]`)
}

// A Service of both families, with a port of each protocol.
func TestARuleForAServicesAddressMeansNothing(t *testing.T) {
	protos := []packet.Protocol{packet.TCP, packet.UDP, packet.SCTP}
	eachWiring(t, func(t *testing.T, w *world) {
		w.serve(t, protos...)
		ask := func(v6 bool) (list []trial.Question) {
			for _, proto := range protos {
				list = append(list, trial.Question{From: jailed, To: victim, Dst: front(v6).Addr(), Proto: proto,
					Port: front(v6).Port()})
			}
			return list
		}
		w.Enforce(t, leave("80", "10.96.0.10/32", "fd00:96::10/128"))
		stage.Families(t, func(t *testing.T, v6 bool) { w.Denied(t, ruleset.CounterEgress, ask(v6)...) })
		w.Enforce(t, leave("80", "10.244.1.10/32", "fd00:244:1::10/128")) // the pod, at the Service's port
		stage.Families(t, func(t *testing.T, v6 bool) { w.Denied(t, ruleset.CounterEgress, ask(v6)...) })
		w.Enforce(t, leave("8080", "10.244.1.10/32", "fd00:244:1::10/128"))
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, ask(v6)...)
			for _, q := range ask(v6) {
				got := w.One(t, probe.Probe{From: jailed, Dst: q.Dst, Proto: q.Proto, DstPort: q.Port})
				if got.Endpoint != victim || got.Dst != w.at(t, victim, v6, 8080) {
					t.Errorf("%s arrived at %s as %s, want %s", q.Proto, got.Endpoint, got.Dst, w.at(t, victim, v6, 8080))
				}
			}
		})
	})
}

// The API server is such a Service: its endpoint has the address of a node, the pod's own or another.
func TestAServiceOfNodesIsReachedByARuleForTheNodes(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		port := map[string]uint16{node1: 443, node2: 444} // of the Service
		for server, p := range port {
			for _, v6 := range []bool{false, true} {
				w.Svc = append(w.Svc, lab.Service{Front: netip.AddrPortFrom(front(v6).Addr(), p), Proto: packet.TCP,
					Backends: []netip.AddrPort{w.at(t, server, v6, 6443)}})
			}
		}
		ask := func(server string, v6 bool) trial.Question {
			return trial.Question{From: jailed, To: server, Dst: front(v6).Addr(), Proto: packet.TCP, Port: port[server]}
		}
		w.Enforce(t, leave("443", "10.96.0.10/32", "fd00:96::10/128"))
		stage.Families(t, func(t *testing.T, v6 bool) { w.Denied(t, ruleset.CounterEgress, ask(node1, v6), ask(node2, v6)) })
		w.Enforce(t, leave("6443", "172.30.0.0/24", "fd00:172:30::/64"))
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, ask(node1, v6), ask(node2, v6))
			w.Denied(t, ruleset.CounterEgress, w.Ask(t, jailed, node1, v6, packet.TCP, 10250),
				w.Ask(t, jailed, node2, v6, packet.TCP, 10250))
		})
	})
}
