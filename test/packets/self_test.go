// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// The connection and its replies take the whole path: to the node, back, and translated in both directions
// if there is a Service.
func TestAPodTalksToItselfUnderDenyAll(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		w.Hairpin(t, victim)
		w.serve(t, packet.TCP, packet.UDP)
		w.denyAll(t)
		stage.Families(t, func(t *testing.T, v6 bool) {
			own, before := w.at(t, victim, v6, 8080), w.Counters(t)
			l, answering := w.listen(t, victim, own), w.udp(t, victim, own, netip.AddrPort{})
			for i, to := range []netip.AddrPort{own, front(v6)} {
				client, server := w.connect(t, victim, to, l)
				carries(t, client, server, 10_000)
				carries(t, server, client, 10_000)
				asking := w.udp(t, victim, w.at(t, victim, v6, 7000+uint16(i)), to)
				send(t, asking, []byte("question"), netip.AddrPort{})
				_, from := receive(t, answering)
				send(t, answering, []byte("answer"), from)
				if got, _ := receive(t, asking); string(got) != "answer" {
					t.Errorf("by %s came %q", to, got)
				}
			}
			w.Moved(t, "a pod talking to itself", before, stage.Drops{})
		})
	})
}
