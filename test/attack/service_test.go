// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/nft"
	"github.com/podwall/podwall/internal/trial"
)

// serve puts a Service with port 80 before the victim's port 8080.
func (w *world) serve(t *testing.T, proto packet.Protocol) {
	t.Helper()
	w.svc = nil
	for _, v6 := range []bool{false, true} {
		w.svc = append(w.svc, lab.Service{Front: netip.AddrPortFrom(front(v6), 80), Proto: proto,
			Backends: []netip.AddrPort{netip.AddrPortFrom(w.addr(t, victim, v6), 8080)}})
	}
}

func front(v6 bool) netip.Addr { return pick(v6, "fd00:96::10", "10.96.0.10") }

func TestAPodReachesItselfThroughItsServiceUnderDenyAll(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		w.hairpin(t, victim)
		for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
			w.serve(t, proto)
			w.apply(t, policy("all", "", `policyTypes: [Ingress, Egress]`))
			families(t, func(t *testing.T, v6 bool) {
				got := w.one(t, probe.Probe{From: victim, Dst: front(v6), Proto: proto, DstPort: 80})
				if got.Endpoint != victim || got.Dst.Port() != 8080 {
					t.Errorf("arrived at %s port %d, want %s port 8080", got.Endpoint, got.Dst.Port(), victim)
				}
				w.denied(t, nft.CounterEgress, trial.Question{From: peer, To: victim, Dst: front(v6), Proto: proto, Port: 80})
				w.denied(t, nft.CounterIngress, trial.Question{From: near, To: victim, Dst: front(v6), Proto: proto, Port: 80})
			})
		}
	})
}

// hairpin lets a bridge send a frame back to where it came from. A bridge that
// shows its packets to the IP hooks translates the destination by itself and
// needs that; the kubelet's network plugins set it (hairpinMode).
func (w *world) hairpin(t *testing.T, pod string) {
	t.Helper()
	if w.wiring != lab.Bridge {
		return
	}
	e := w.endpoint(t, pod)
	h := w.handle(t, e.Node)
	link, err := h.LinkByName(e.HostDevice)
	check(t, err)
	check(t, h.LinkSetHairpin(link, true))
}

// one sends a probe that must arrive, and says where it did.
func (w *world) one(t *testing.T, p probe.Probe) probe.Arrival {
	t.Helper()
	p.ID = w.Prober().NextID()
	check(t, w.Prober().Send([]probe.Probe{p}))
	_, err := w.Prober().Collect(t.Context(), []uint32{p.ID}, nil, time.Now().Add(patience))
	check(t, err)
	list := w.Prober().Arrived(p.ID)
	if len(list) == 0 {
		t.Fatalf("%s from %s to %s:%d did not arrive", p.Proto, p.From, p.Dst, p.DstPort)
	}
	return list[0]
}

func TestServiceTrafficIsJudgedOnThePodsPortAndTheRealSource(t *testing.T) {
	for name, options := range map[string]lab.ServiceOptions{"plain": {}, "masquerade-all": {MasqueradeAll: true}} {
		t.Run(name, func(t *testing.T) {
			eachDatapath(t, setup{services: options}, func(t *testing.T, w *world) {
				w.serve(t, packet.TCP)
				w.ports(t, "8080")
				families(t, func(t *testing.T, v6 bool) {
					w.allowed(t, w.call(peer, v6), w.call(jailed, v6))
					w.denied(t, nft.CounterIngress, w.call(near, v6), w.call(far, v6))
					w.denied(t, nft.CounterEgress, w.ask(t, jailed, victim, v6, packet.TCP, 80))
				})
				w.ports(t, "80") // the Service's port, which no packet has at the pod
				families(t, func(t *testing.T, v6 bool) {
					w.denied(t, nft.CounterIngress, w.call(peer, v6), w.call(near, v6))
					w.denied(t, nft.CounterEgress, w.call(jailed, v6))
				})
			})
		})
	}
}

// ports lets the peer and the jailed pod meet the victim at one port.
func (w *world) ports(t *testing.T, port string) {
	t.Helper()
	w.apply(t,
		policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: `+port+`}]}]`),
		policy("jailed", "jailed", `policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: victim}}}], ports: [{port: `+port+`}]}]`))
}

// call asks the Service.
func (w *world) call(from string, v6 bool) trial.Question {
	return trial.Question{From: from, To: victim, Dst: front(v6), Proto: packet.TCP, Port: 80}
}
