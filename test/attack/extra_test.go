// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// Additional addresses by annotation: the peer has one of each family and a hardware address. Near requests
// the peer's own address, one that another pod of the node requests too, and one that the operator does not
// allow.
var (
	extra4, extra6 = netip.MustParseAddr("10.244.1.201"), netip.MustParseAddr("fd00:244:1::201")
	contested      = netip.MustParseAddr("10.244.1.202")
	extraHardware  = net.HardwareAddr{0x02, 0, 0, 0, 0, 1} // sorts before the interface's own
)

func withExtra(t *testing.T, wiring lab.Wiring, args ...string) *world {
	t.Helper()
	return &world{stage.New(t, wiring, stage.Setup{
		Args: append(args, "--extra-addresses=10.244.1.8/29,10.244.1.200/29,fd00:244:1::200/120,02:00:00:00:00:00/24,52:54:00:00:00:00/24"),
		Extra: map[string]string{
			peer: extra4.String() + ", " + extra6.String() + ", " + extraHardware.String(),
			near: stage.Cast()[1].V4.String() + "," + contested.String() + ",203.0.113.7,02:70:77:00:00:01",
			open: contested.String(),
		}})}
}

func TestAFurtherAddressIsThatOfItsPod(t *testing.T) {
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		for _, datapath := range []string{"nat", "filter"} {
			t.Run(string(wiring)+"/"+datapath, func(t *testing.T) {
				w := withExtra(t, wiring, "--datapath="+datapath)
				if wiring == lab.Routed {
					w.lead(t, peer, extra4, extra6)
				}
				w.takeAll(t, peer, extra4, extra6)
				w.further(t)
				stage.Check(t, w.Restart(t.Context(), node1, func() error { return nil }))
				w.further(t)
			})
		}
	}
}

// lead makes routes to a pod on its node.
func (w *world) lead(t *testing.T, pod string, addrs ...netip.Addr) {
	t.Helper()
	h := w.Handle(t, node1)
	link, err := h.LinkByName(w.Endpoint(t, pod).HostDevice)
	stage.Check(t, err)
	for _, a := range addrs {
		stage.Check(t, h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(a), Scope: netlink.SCOPE_LINK}))
	}
	w.Enforce(t, append(stage.Usual(), stage.Policy("other", "open", `policyTypes: [Ingress]`))...) // one more pass
}

// further wants only the peer to be admitted with its additional addresses.
func (w *world) further(t *testing.T) {
	t.Helper()
	stage.Families(t, func(t *testing.T, v6 bool) {
		as, to := extra4, w.Addr(t, victim, v6)
		if v6 {
			as = extra6
		}
		if w.passes(t, near, as, to) || w.passes(t, far, as, to) {
			t.Errorf("the further address %s of the peer helps others", as)
		}
		q := w.Ask(t, peer, victim, v6, packet.TCP, 80)
		q.Src = as
		w.Allowed(t, q, w.Ask(t, peer, victim, v6, packet.TCP, 80))
		back := w.Ask(t, open, peer, v6, packet.TCP, 80)
		back.Dst = as
		w.Allowed(t, back)
	})
	for _, a := range []netip.Addr{w.Addr(t, peer, false), contested, netip.MustParseAddr("203.0.113.7")} {
		if w.passes(t, near, a, w.Addr(t, peer, false)) {
			t.Errorf("%s has %s by its annotation", near, a)
		}
	}
}

func TestAFurtherHardwareAddressIsThatOfItsPod(t *testing.T) {
	w := withExtra(t, lab.Bridge)
	w.hardware(t)
	stage.Check(t, w.Restart(t.Context(), node1, func() error { return nil }))
	w.hardware(t)
	w.owns(t, near)
}

// hardware wants the additional hardware address to belong to the peer.
func (w *world) hardware(t *testing.T) {
	t.Helper()
	for _, tt := range []struct {
		from    string
		hw      net.HardwareAddr
		arrives bool
	}{{peer, extraHardware, true}, {near, extraHardware, false}, {near, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 9}, false}} {
		mark := w.Marks.Next()
		p := packet.Packet{Src: w.Addr(t, tt.from, false), Dst: w.Addr(t, open, false), Proto: packet.UDP, SrcPort: 1,
			DstPort: 2, Payload: mark}
		w.sendFrame(t, tt.from, w.Prober().HardwareAddr(open), tt.hw, 0x0800, p.Bytes())
		if time.Sleep(stage.Grace); w.Taps[open].Saw(t, mark) != tt.arrives {
			t.Errorf("a frame of %s with %s arrived: %t, want %t", tt.from, tt.hw, !tt.arrives, tt.arrives)
		}
	}
}
