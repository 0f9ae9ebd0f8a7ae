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
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// udp begins a connection and returns its first packet, and that of the answer.
func (w *world) udp(t *testing.T, from, to string, v6 bool, port uint16) (first, answer packet.Packet) {
	t.Helper()
	first = packet.Packet{Src: w.Addr(t, from, v6), Dst: w.Addr(t, to, v6), Proto: packet.UDP, SrcPort: port, DstPort: 7000}
	w.One(t, probe.Probe{From: from, Dst: first.Dst, Proto: first.Proto, SrcPort: first.SrcPort, DstPort: first.DstPort})
	return first, packet.Packet{Src: first.Dst, Dst: first.Src, Proto: packet.UDP, SrcPort: first.DstPort, DstPort: first.SrcPort}
}

// unreachable is an ICMP error to the sender of a packet, from a pod, with any source.
func (w *world) unreachable(t *testing.T, from, to string, src netip.Addr, about packet.Packet) stage.Shot {
	t.Helper()
	m := w.Marks.Next()
	about.Payload = append(make([]byte, 944), m...)
	kind, code := uint8(3), uint8(3)
	if about.Dst.Is6() {
		kind, code = 1, 4
	}
	return w.Bytes("error", from, to, about.Src, m, stage.ICMP(src, about.Src, kind, code, 64, 0, about.Bytes()))
}

// quoted sends errors about other pods' connections, on every path.
func (w *world) quoted(t *testing.T, v6 bool) (shots []stage.Shot) {
	t.Helper()
	src := w.Addr(t, jailed, v6)
	for i, ends := range [][2]string{{open, out}, {near, open}, {open, far}} {
		first, answer := w.udp(t, ends[0], ends[1], v6, 5000+uint16(i))
		shots = append(shots, w.unreachable(t, jailed, ends[0], src, first), w.unreachable(t, jailed, ends[1], src, answer))
	}
	first, _ := w.udp(t, node1, open, v6, 5010)
	toNode := w.unreachable(t, jailed, open, src, first) // nodes have no tap: the counters tell
	return append(shots, toNode, w.unreachable(t, jailed, near, src, w.served(t, near, v6, 5011)))
}

// served calls the Service and returns the packet as its pod gets it.
func (w *world) served(t *testing.T, from string, v6 bool, port uint16) packet.Packet {
	t.Helper()
	got := w.One(t, probe.Probe{From: from, Dst: front(v6), Proto: packet.UDP, SrcPort: port, DstPort: 80})
	return packet.Packet{Src: got.Src.Addr(), Dst: got.Dst.Addr(), Proto: packet.UDP, SrcPort: got.Src.Port(), DstPort: got.Dst.Port()}
}

// backend puts a Service before a pod's port 7000.
func (w *world) backend(t *testing.T, pod string) {
	t.Helper()
	w.Svc = nil
	for _, v6 := range []bool{false, true} {
		w.Svc = append(w.Svc, lab.Service{Front: netip.AddrPortFrom(front(v6), 80), Proto: packet.UDP,
			Backends: []netip.AddrPort{netip.AddrPortFrom(w.Addr(t, pod, v6), 7000)}})
	}
}

func TestErrorsAboutConnectionsOfOthersAreStopped(t *testing.T) {
	everywhere(t, stage.Setup{}, func(t *testing.T, w *world) {
		w.backend(t, open)
		w.Enforce(t, stage.Usual()...)
		stage.Families(t, func(t *testing.T, v6 bool) {
			shots := w.quoted(t, v6)
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: uint64(len(shots))}, shots...)
			first, _ := w.udp(t, open, out, v6, 5020)
			counter := ruleset.CounterSpoofed
			if w.Wiring == lab.Bridge {
				counter = ruleset.CounterSpoofedFrame
			}
			w.Stopped(t, stage.Drops{counter: 2}, w.unreachable(t, jailed, open, w.Addr(t, out, v6), first),
				w.unreachable(t, jailed, open, w.Addr(t, near, v6), first))
		})
	})
}

// With the guard off, only errors to the node are filtered.
func TestErrorsPassWithoutTheGuard(t *testing.T) {
	eachWiring(t, stage.Setup{Args: []string{"--invalid-guard=off"}}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			first, answer := w.udp(t, open, out, v6, 5000)
			src := w.Addr(t, jailed, v6)
			w.Arrive(t, w.unreachable(t, jailed, open, src, first), w.unreachable(t, jailed, out, src, answer))
			first, _ = w.udp(t, node1, open, v6, 5010)
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 1}, w.unreachable(t, jailed, open, src, first))
		})
	})
}

func TestHonestErrorsArrive(t *testing.T) {
	for name, options := range map[string]lab.ServiceOptions{"plain": {}, "masquerade-all": {MasqueradeAll: true}} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, stage.Setup{Services: options}, func(t *testing.T, w *world) {
				w.backend(t, jailed)
				w.Enforce(t, stage.Usual()[0], stage.Policy("jailed", "jailed",
					`policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: victim}}}, {ipBlock: {cidr: 203.0.113.10/32}}, `+
						`{ipBlock: {cidr: "2001:db8:cafe::a/128"}}], ports: [{port: 7000, protocol: UDP}]}]`))
				stage.Families(t, func(t *testing.T, v6 bool) { w.honest(t, v6) })
			})
		})
	}
}

// honest errors are about packets that the pod received from a client, from a server or through a Service,
// and about any packets where no pod is isolated.
func (w *world) honest(t *testing.T, v6 bool) {
	t.Helper()
	before := w.Counters(t)
	src := w.Addr(t, jailed, v6)
	for i, client := range []string{near, far, out} {
		first, _ := w.udp(t, client, jailed, v6, 5100+uint16(i))
		w.Arrive(t, w.unreachable(t, jailed, client, src, first))
	}
	_, answer := w.udp(t, jailed, out, v6, 5110)
	w.Arrive(t, w.unreachable(t, jailed, out, src, answer))
	for i, client := range []string{near, far} {
		w.Arrive(t, w.unreachable(t, jailed, client, src, w.served(t, client, v6, 5120+uint16(i))))
	}
	first, answer := w.udp(t, open, out, v6, 5130)
	w.Arrive(t, w.unreachable(t, near, open, w.Addr(t, near, v6), first), w.unreachable(t, near, out, w.Addr(t, near, v6), answer))
	router := stage.Pick(v6, "2001:db8:cafe::99", "198.51.100.99")
	w.Arrive(t, w.unreachable(t, out, open, router, first))
	if w.Wiring == lab.Routed { // a pod that routes forwards errors of others
		w.Arrive(t, w.unreachable(t, near, open, router, first))
	}
	if moved := w.Quiet(stage.Drops{}, w.Since(t, before)); len(moved) > 0 {
		t.Errorf("honest errors moved %v", moved)
	}
}

// An egress rule without a protocol also allows errors.
func TestARuleForEveryProtocolIsOneForErrors(t *testing.T) {
	everywhere(t, stage.Setup{}, func(t *testing.T, w *world) {
		w.Enforce(t, stage.Policy("jailed", "jailed", `policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.10/32}}, `+
			`{ipBlock: {cidr: "2001:db8:cafe::a/128"}}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			first, answer := w.udp(t, open, out, v6, 5000)
			src := w.Addr(t, jailed, v6)
			w.Arrive(t, w.unreachable(t, jailed, out, src, answer))
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 1}, w.unreachable(t, jailed, open, src, first))
		})
	})
}
