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

// passes reports whether a SYN with a forged source arrives at the victim.
func (w *world) passes(t *testing.T, from string, src, dst netip.Addr) bool {
	t.Helper()
	before := w.counters(t)
	id := w.Prober().NextID()
	check(t, w.Prober().Send([]probe.Probe{{ID: id, Proto: packet.TCP, From: from, Src: src, Dst: dst, DstPort: 80}}))
	dropped := func() (n uint64, err error) {
		for _, v := range w.since(t, before) {
			n += v
		}
		return n, nil
	}
	// The kernel may drop it without a counter of ours.
	_, err := w.Prober().Collect(t.Context(), []uint32{id}, dropped, time.Now().Add(4*grace))
	check(t, err)
	return len(w.Prober().Arrived(id)) > 0
}

// What a forged source gains is written down here, not judged: the source of a
// connection's first packet is not bound to the interface yet, see "Known
// limits" in docs/design/datapath.md.
func TestWhatAForgedSourceGains(t *testing.T) {
	eachWiring(t, setup{}, func(t *testing.T, w *world) {
		families(t, func(t *testing.T, v6 bool) {
			bridge := pick(v6, "fd00:244:1::1", "10.244.1.1")
			for _, from := range []string{near, far} {
				for _, src := range []struct {
					what string
					addr netip.Addr
				}{{"the allowed peer", w.addr(t, peer, v6)}, {"the victim itself", w.addr(t, victim, v6)},
					{"the victim's node", w.addr(t, node1, v6)}, {"the other node", w.addr(t, node2, v6)}, {"the victim's bridge", bridge}} {
					t.Logf("%s as %s (%s): passes: %t", from, src.what, src.addr, w.passes(t, from, src.addr, w.addr(t, victim, v6)))
				}
			}
		})
	})
}

func TestAForgedSourceThatIsNoPeerGainsNothing(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		families(t, func(t *testing.T, v6 bool) {
			ask := func(from, to string, src netip.Addr) trial.Question {
				q := w.ask(t, from, to, v6, packet.TCP, 80)
				q.Src = src
				return q
			}
			w.denied(t, nft.CounterIngress, ask(near, victim, w.addr(t, open, v6)), ask(far, victim, w.addr(t, open, v6)),
				ask(far, victim, w.addr(t, yonder, v6)), ask(out, victim, w.addr(t, near, v6)))
			if v6 && w.wiring == lab.Routed {
				w.denied(t, nft.CounterSource, ask(jailed, open, w.addr(t, node1, v6)), ask(jailed, open, w.addr(t, node2, v6)))
			}
		})
	})
}

// What the node sends to its pods is allowed, so everybody would like to be the
// node. On a bridge somebody beside the victim still can, see above.
func TestNobodyElsewhereCanBeTheNode(t *testing.T) {
	eachDatapath(t, setup{}, func(t *testing.T, w *world) {
		families(t, func(t *testing.T, v6 bool) {
			second := pick(v6, "fd00:244:1::77", "10.244.1.77")
			w.take(t, victim, second)
			if w.wiring == lab.Routed {
				w.route(t, node1, w.endpoint(t, victim).HostDevice, second, netip.Addr{})
			}
			w.route(t, node2, "eth0", second, w.addr(t, node1, v6))
			sources := []netip.Addr{w.addr(t, node1, v6)}
			if w.wiring == lab.Bridge {
				sources = append(sources, pick(v6, "fd00:244:1::1", "10.244.1.1"))
			}
			for _, src := range sources {
				for _, dst := range []netip.Addr{w.addr(t, victim, v6), second} {
					if w.passes(t, far, src, dst) {
						t.Errorf("%s as %s reaches %s", far, src, dst)
					}
					if w.wiring == lab.Routed && w.passes(t, near, src, dst) {
						t.Errorf("%s as %s reaches %s", near, src, dst)
					}
				}
			}
			for _, dst := range []netip.Addr{w.addr(t, victim, v6), second} {
				w.allowed(t, trial.Question{From: node1, To: victim, Dst: dst, Proto: packet.TCP, Port: 80})
			}
		})
	})
}
