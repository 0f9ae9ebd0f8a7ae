// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// tooBig is a router's error about a UDP packet that endpoint to has sent.
func (w *world) tooBig(t *testing.T, from, to string, about packet.Packet) stage.Shot {
	t.Helper()
	m := w.Marks.Next()
	about.Payload = m
	kind, code := uint8(3), uint8(4)
	if about.Dst.Is6() {
		kind, code = 2, 0
	}
	src := w.Addr(t, from, about.Dst.Is6())
	b := stage.ICMP(src, about.Src, kind, code, 64, 1400, about.Bytes())
	return w.Bytes("too big", from, to, about.Src, m, b)
}

func TestErrorsOfAllowedConnectionsPassAndOthersDoNot(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		counter := ruleset.CounterInvalid
		if w.Filter() {
			counter = ruleset.CounterIngress
		}
		stage.Families(t, func(t *testing.T, v6 bool) {
			flow := packet.Packet{Src: w.Addr(t, victim, v6), Dst: w.Addr(t, out, v6), Proto: packet.UDP, SrcPort: 5555, DstPort: 7000}
			w.One(t, probe.Probe{From: victim, Dst: flow.Dst, Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort})
			w.Arrive(t, w.tooBig(t, out, victim, flow))
			flow.SrcPort++ // no such connection
			w.Stopped(t, stage.Drops{counter: 3}, w.tooBig(t, out, victim, flow), w.tooBig(t, near, victim, flow), w.tooBig(t, far, victim, flow))
		})
	})
}

func TestEchoToAnIsolatedPodIsDenied(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			echo := func(from, to string) trial.Question { return w.Ask(t, from, to, v6, packet.ICMP, 0) }
			w.Denied(t, ruleset.CounterIngress, echo(near, victim), echo(far, victim), echo(peer, victim), echo(out, victim))
			w.Denied(t, ruleset.CounterEgress, echo(jailed, open), echo(jailed, yonder), echo(jailed, out), echo(jailed, node1))
			w.Allowed(t, echo(node1, victim), echo(node1, jailed), echo(near, jailed), echo(victim, out), echo(near, open))
		})
	})
}

// All pods of the shop are closed except for one path, and no endpoint has a cached hardware address.
func TestNeighboursAreFoundUnderDenyAll(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, node1, victim, v6, packet.TCP, 80), w.Ask(t, victim, node1, v6, packet.TCP, 80))
		})
		w.Enforce(t, stage.Policy("all", "", `policyTypes: [Ingress, Egress]`),
			stage.Policy("in", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: 80}]}]`),
			stage.Policy("out", "peer", `policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: victim}}}]}]`))
		for _, name := range []string{victim, peer, node1} {
			if w.Forget(t, name) == 0 && w.Wiring == lab.Bridge {
				t.Fatalf("%s had no neighbours: nothing is tested", name)
			}
		}
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80))
			w.Denied(t, ruleset.CounterIngress, w.Ask(t, near, victim, v6, packet.TCP, 80))
		})
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, node1, victim, v6, packet.TCP, 80), w.Ask(t, node1, jailed, v6, packet.UDP, 81))
		})
	})
}

func TestMulticastListenerReportsOfAClosedPodReachTheNode(t *testing.T) {
	const count = "Icmp6InGroupMembResponses"
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		from, all := w.podLocal(t, jailed), netip.MustParseAddr("ff02::2") // the group of all routers
		b := stage.ICMP(from.addr, all, 131, 0, 1, 0, all.AsSlice())
		frame := packet.Ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}, w.Prober().HardwareAddr(jailed), nil, b)
		before := w.statistic(t, node1, count)
		stage.Check(t, w.Prober().SendFrame(jailed, frame))
		for end := time.Now().Add(stage.Patience); w.statistic(t, node1, count) == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the node did not take the report")
			}
		}
	})
}

// statistic reads one of an endpoint's IPv6 counters.
func (w *world) statistic(t *testing.T, name, field string) (n uint64) {
	t.Helper()
	stage.Check(t, w.NS(t, name).Do(func() error {
		f, err := os.Open("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == field {
				n, err = strconv.ParseUint(f[1], 10, 64)
				return err
			}
		}
		return os.ErrNotExist
	}))
	return n
}
