// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// large is a datagram that needs several packets: a mark in the first and
// another one in the last.
func (w *world) large() (b, first, last []byte) {
	first, last = w.Marks.Next(), w.Marks.Next()
	b = append(append(b, first...), make([]byte, 4000)...)
	return append(b, last...), first, last
}

func TestLargeDatagramsOfAllowedFlowsArriveWholeAndOthersNotAtAll(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			before := w.Counters(t)
			for _, p := range [][2]string{{peer, victim}, {far, open}, {victim, yonder}} {
				client, server := w.udp(t, p[0], w.at(t, p[0], v6, 5000), w.at(t, p[1], v6, 80)),
					w.udp(t, p[1], w.at(t, p[1], v6, 80), netip.AddrPort{})
				b, _, _ := w.large()
				send(t, client, b, netip.AddrPort{})
				got, from := receive(t, server)
				send(t, server, got, from) // and so does the answer
				if back, _ := receive(t, client); string(got) != string(b) || string(back) != string(b) {
					t.Errorf("%s → %s: %d bytes arrived and %d came back, want %d", p[0], p[1], len(got), len(back), len(b))
				}
			}
			w.Moved(t, "large datagrams of allowed flows", before, stage.Drops{})
			for i, p := range [][2]string{{near, victim}, {far, victim}, {jailed, open}, {jailed, yonder}} {
				counter := ruleset.CounterIngress
				if p[0] == jailed {
					counter = ruleset.CounterEgress
				}
				before := w.Counters(t)
				b, first, last := w.large()
				send(t, w.udp(t, p[0], w.at(t, p[0], v6, 5001+uint16(i)), w.at(t, p[1], v6, 81)), b, netip.AddrPort{})
				w.Moved(t, p[0]+" → "+p[1], before, stage.Drops{counter: 1}) // the datagram gets the verdict, not its parts
				if w.Taps[p[1]].Saw(t, first) || w.Taps[p[1]].Saw(t, last) {
					t.Errorf("%s → %s: a part of the datagram arrived", p[0], p[1])
				}
			}
		})
	})
}

// IPv6 routers do not fragment.
func TestASegmentThatARouterFragmentsArrives(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.denyAll(t, stage.Policy("in", "victim", `policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: far}}}], ports: [{port: 80}]}]`))
		h, link := w.link(t, node2, "eth0")
		stage.Check(t, h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(w.Addr(t, victim, false)),
			Gw: w.Addr(t, node1, false).AsSlice(), MTU: narrow}))
		before, fragments := w.Counters(t), w.statistic(t, node2, "Ip:", "FragCreates")
		to := w.at(t, victim, false, 80)
		client, server := w.connect(t, far, to, w.listen(t, victim, to))
		option(t, client, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
		carries(t, client, server, 100_000)
		if w.statistic(t, node2, "Ip:", "FragCreates") == fragments {
			t.Error("the router made no fragments: nothing is tested")
		}
		w.Moved(t, "fragments of an allowed connection", before, stage.Drops{})
	})
}

// statistic reads one of an endpoint's IPv4 counters: a line with the names, and
// one with the values.
func (w *world) statistic(t *testing.T, endpoint, line, field string) (n uint64) {
	t.Helper()
	var text []byte
	stage.Check(t, w.NS(t, endpoint).Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	}))
	var fields []string
	for l := range strings.Lines(string(text)) {
		f := strings.Fields(l)
		switch {
		case f[0] != line:
		case fields == nil:
			fields = f
		default:
			for i, name := range fields {
				if name == field {
					n, err := strconv.ParseUint(f[i], 10, 64)
					stage.Check(t, err)
					return n
				}
			}
		}
	}
	t.Fatalf("%s has no counter %s", endpoint, field)
	return 0
}
