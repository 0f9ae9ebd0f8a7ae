// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// passes reports whether a SYN with a spoofed source arrives at the victim.
func (w *world) passes(t *testing.T, from string, src, dst netip.Addr) bool {
	t.Helper()
	id := w.Prober().NextID()
	stage.Check(t, w.Prober().Send([]probe.Probe{{ID: id, Proto: packet.TCP, From: from, Src: src, Dst: dst, DstPort: 80}}))
	// Counters do not end the wait: they count packets of others too, and the
	// kernel may drop this one without any of ours.
	_, err := w.Prober().Collect(t.Context(), []uint32{id}, nil, time.Now().Add(max(4*stage.Grace, w.Prober().Settle)))
	stage.Check(t, err)
	return len(w.Prober().Arrived(id)) > 0
}

// An attack that works is seen to work, also if its packet is late and packets of others are dropped and
// counted meanwhile.
func TestAnAttackThatWorksIsSeen(t *testing.T) {
	w := &world{stage.New(t, lab.Routed, stage.Setup{})}
	stage.Families(t, func(t *testing.T, v6 bool) {
		own, to := w.Addr(t, near, v6), w.Addr(t, open, v6)
		w.Allowed(t, w.Ask(t, near, open, v6, packet.TCP, 80)) // neighbours are known
		w.slow(t, near, 1400)
		begin := time.Now()
		first := stage.IP(own, to, 253, 253, 64, make([]byte, 1480-own.BitLen()/128*20)) // 1500 bytes
		stage.Check(t, w.Prober().SendPacket(near, to, first))
		stage.Check(t, w.Prober().Send([]probe.Probe{{ID: w.Prober().NextID(), Proto: packet.TCP, From: jailed, Dst: to, DstPort: 80}}))
		if !w.passes(t, near, own, to) {
			t.Error("a packet that passes was not seen")
		}
		if took := time.Since(begin); took < stage.Grace/2 {
			t.Errorf("the packet was not late: %v", took)
		}
	})
}

// slow bounds the bytes that a pod sends in a second; the first 1520 pass at once.
func (w *world) slow(t *testing.T, pod string, rate uint64) {
	t.Helper()
	h := w.Handle(t, pod)
	link, err := h.LinkByName("eth0")
	stage.Check(t, err)
	stage.Check(t, h.QdiscReplace(&netlink.Tbf{Rate: rate, Limit: 10_000, Buffer: uint32(netlink.Xmittime(rate, 1520)),
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}}))
}

// A pod of this node gains nothing from the address of the allowed peer, of the receiver, or of the node. A
// spoofed first packet also leaves no entry under which the attacker's own packets would pass as replies.
func TestAForgedSourceGainsNothing(t *testing.T) {
	eachDatapath(t, stage.Setup{}, forgedSourceGainsNothing)
}

func forgedSourceGainsNothing(t *testing.T, w *world) {
	stage.Families(t, func(t *testing.T, v6 bool) {
		bridge := stage.Pick(v6, "fd00:244:1::1", "10.244.1.1")
		for _, src := range []struct {
			what string
			addr netip.Addr
		}{{"the allowed peer", w.Addr(t, peer, v6)}, {"the victim itself", w.Addr(t, victim, v6)},
			{"the victim's node", w.Addr(t, node1, v6)}, {"the other node", w.Addr(t, node2, v6)},
			{"the victim's bridge", bridge}, {"a host outside", w.Addr(t, out, v6)}} {
			if w.passes(t, near, src.addr, w.Addr(t, victim, v6)) {
				t.Errorf("%s as %s (%s) reaches the victim", near, src.what, src.addr)
			}
		}
		for _, src := range []string{victim, node1, node2, out, near} {
			if w.passes(t, far, w.Addr(t, src, v6), w.Addr(t, victim, v6)) {
				t.Errorf("%s as %s reaches the victim", far, src)
			}
		}
	})
}

// Only the spoofing pod's own node can detect it: a packet that its agent lets out looks genuine elsewhere.
func TestAPodElsewhereCannotBeThePeerEither(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			if w.passes(t, far, w.Addr(t, peer, v6), w.Addr(t, victim, v6)) {
				t.Errorf("%s as %s reaches the victim", far, peer)
			}
		})
	})
}

func TestAForgedSourceThatIsNoPeerGainsNothing(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			ask := func(from, to string, src netip.Addr) trial.Question {
				q := w.Ask(t, from, to, v6, packet.TCP, 80)
				q.Src = src
				return q
			}
			w.forged(t, ask(near, victim, w.Addr(t, open, v6)), ask(far, victim, w.Addr(t, yonder, v6)), ask(far, victim, w.Addr(t, open, v6)))
			w.Denied(t, ruleset.CounterIngress, ask(out, victim, w.Addr(t, near, v6)))
			if v6 && w.Wiring == lab.Routed {
				w.Denied(t, ruleset.CounterSpoofed, ask(jailed, open, w.Addr(t, node1, v6)), ask(jailed, open, w.Addr(t, node2, v6)))
			}
		})
	})
}

// The node may reach all its pods, so its address is worth spoofing. On a bridge a neighbour of the victim
// still can, see above.
func TestNobodyElsewhereCanBeTheNode(t *testing.T) {
	eachDatapath(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			second := stage.Pick(v6, "fd00:244:1::77", "10.244.1.77")
			w.take(t, victim, second)
			if w.Wiring == lab.Routed {
				w.route(t, node1, w.Endpoint(t, victim).HostDevice, second, netip.Addr{})
			}
			w.route(t, node2, "eth0", second, w.Addr(t, node1, v6))
			sources, addrs := []netip.Addr{w.Addr(t, node1, v6)}, []netip.Addr{w.Addr(t, victim, v6), second}
			if w.Wiring == lab.Bridge {
				sources = append(sources, stage.Pick(v6, "fd00:244:1::1", "10.244.1.1"))
			}
			for _, src := range sources {
				for _, dst := range addrs {
					if w.passes(t, far, src, dst) {
						t.Errorf("%s as %s reaches %s", far, src, dst)
					}
					if w.Wiring == lab.Routed && w.passes(t, near, src, dst) {
						t.Errorf("%s as %s reaches %s", near, src, dst)
					}
				}
			}
			if w.Wiring == lab.Bridge {
				addrs = addrs[:1] // no port announces the second
			}
			for _, dst := range addrs {
				w.Allowed(t, trial.Question{From: node1, To: victim, Dst: dst, Proto: packet.TCP, Port: 80})
			}
		})
	})
}
