// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// An SCTP INIT has its ports at the same offset as TCP, and a valid checksum.
func TestARuleForOneProtocolOpensNoOther(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		protos := []packet.Protocol{packet.TCP, packet.UDP, packet.SCTP}
		for _, opened := range protos {
			rule := fmt.Sprintf(`[{ports: [{port: 80, protocol: %s}]}]`,
				map[packet.Protocol]string{packet.TCP: "TCP", packet.UDP: "UDP", packet.SCTP: "SCTP"}[opened])
			w.Enforce(t, stage.Policy("v", "victim", `policyTypes: [Ingress], ingress: `+rule),
				stage.Policy("j", "jailed", `policyTypes: [Egress], egress: `+rule))
			stage.Families(t, func(t *testing.T, v6 bool) {
				for _, proto := range append(protos, packet.ICMP) {
					in := []trial.Question{w.Ask(t, near, victim, v6, proto, 80), w.Ask(t, far, victim, v6, proto, 80)}
					outward := []trial.Question{w.Ask(t, jailed, open, v6, proto, 80), w.Ask(t, jailed, yonder, v6, proto, 80)}
					if proto == opened {
						w.Allowed(t, append(in, outward...)...)
						continue
					}
					w.Denied(t, ruleset.CounterIngress, in...)
					w.Denied(t, ruleset.CounterEgress, outward...)
				}
			})
		}
	})
}

// tunnels are packets of tunnelling protocols, in their wire format.
func (w *world) tunnels(t *testing.T, from, to string, v6 bool) []stage.Shot {
	t.Helper()
	src, dst := w.Addr(t, from, v6), w.Addr(t, to, v6)
	var list []stage.Shot
	add := func(name string, number uint8, body func(mark []byte) []byte) {
		m := w.Marks.Next()
		list = append(list, w.Bytes(name, from, to, dst, m, stage.IP(src, dst, number, number, 64, body(m))))
	}
	add("GRE", 47, func(m []byte) []byte { return append([]byte{0, 0, 0x08, 0}, m...) })
	add("ESP", 50, func(m []byte) []byte { // parameter index and sequence number
		return append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 0x1234), 1), m...)
	})
	inner := packet.Packet{Src: w.Addr(t, peer, v6), Dst: dst, Proto: packet.TCP, Flags: packet.SYN, SrcPort: 1,
		DstPort: 80}
	ipip := uint8(4)
	if v6 {
		ipip = 41
	}
	add("IP in IP", ipip, func(m []byte) []byte {
		inner.Payload = m
		return inner.Bytes()
	})
	return list
}

func TestTunnelProtocolsPassOnlyByARuleWithoutPorts(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		both := func(rule string) {
			w.Enforce(t, stage.Policy("v", "victim",
				`policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], `+rule+`}]`),
				stage.Policy("j", "jailed", `policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.0/24}}, {ipBlock: {cidr: "fd00:244:2::/64"}}], `+rule+`}]`))
		}
		both(`ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]`)
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 3}, w.tunnels(t, peer, victim, v6)...)
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 3}, w.tunnels(t, jailed, yonder, v6)...)
		})
		both(`ports: []`)
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Arrive(t, w.tunnels(t, peer, victim, v6)...)
			w.Arrive(t, w.tunnels(t, jailed, yonder, v6)...)
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 6},
				append(w.tunnels(t, near, victim, v6), w.tunnels(t, far, victim, v6)...)...)
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 3}, w.tunnels(t, jailed, open, v6)...)
		})
	})
}
