// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// flow is a client and what it connects to.
type flow struct {
	from string
	to   netip.AddrPort
}

// expect returns what clients may meet, by Eval.
func (w *world) expect(f flow, protocol inet.Protocol) map[string]bool {
	packet := program.Packet{Protocol: protocol, Src: w.addr(f.from), Dst: f.to.Addr(), DstPort: f.to.Port(),
		FromNode: f.from == ourNode}
	want, count := map[string]bool{}, 1
	for i := 0; i < count; i++ {
		o, _ := program.Eval(w.program, packet, program.Memory{}, func(n int) int { count = n; return i })
		want[w.meets(f, o)] = true
	}
	return want
}

// meets returns what a client meets after an outcome, as once does.
func (w *world) meets(f flow, o program.Outcome) string {
	server := f.to.Addr()
	switch o.Fate {
	case program.Dropped:
		return "dropped"
	case program.Rejected:
		return refused
	case program.Forwarded:
		server = o.Backend.Addr
	}
	if o.Masqueraded || f.from == ourNode {
		return w.names[server] + " sees the node"
	}
	return w.names[server] + " sees the client"
}

// tries is how often a client connects until it has met every backend. That one of two is not met by chance
// happens once in 10³⁰ runs.
const tries = 100

// verify has a client connect until it has met all that Eval allows, and nothing else.
func (w *world) verify(t *testing.T, f flow, network string) string {
	t.Helper()
	want := w.expect(f, map[string]inet.Protocol{"tcp": inet.TCP, "udp": inet.UDP}[network])
	left := maps.Clone(want)
	for range tries {
		got := w.once(t, f.from, network, f.to)
		if !want[got] {
			t.Errorf("%s to %s, %s: %s, want one of %v", f.from, f.to, network, got, slices.Sorted(maps.Keys(want)))
			return ""
		}
		if delete(left, got); len(left) == 0 {
			break
		}
	}
	if len(left) > 0 {
		t.Errorf("%s to %s, %s: never met %v", f.from, f.to, network, slices.Sorted(maps.Keys(left)))
	}
	return slices.Sorted(maps.Keys(want))[0]
}

// flows are those of the example, without the sticky fronts. A pod of another node connects only to what
// leads to our node's pods: its own node would do the rest.
func (w *world) flows() (list []flow) {
	for _, from := range []string{ownPod, localPod, office, stranger, ourNode} {
		for _, to := range []netip.AddrPort{
			netip.AddrPortFrom(w.web, port), netip.AddrPortFrom(w.web, otherPort), netip.AddrPortFrom(w.none, port),
			netip.AddrPortFrom(w.quiet, port), netip.AddrPortFrom(w.unused, port), netip.AddrPortFrom(w.admitted, port),
			netip.AddrPortFrom(w.offset, port), netip.AddrPortFrom(w.node, nodePort),
			netip.AddrPortFrom(w.node, otherPort), netip.AddrPortFrom(w.own, target), netip.AddrPortFrom(w.far, target),
		} {
			list = append(list, flow{from, to})
		}
	}
	return append(list, flow{farPod, netip.AddrPortFrom(w.node, nodePort)}, flow{farPod, netip.AddrPortFrom(w.quiet, port)})
}

// What packets meet is what Eval says, on both protocols and families: cluster addresses, external ones,
// node ports, from inside and outside, refused, dropped, masqueraded, to itself, and what is not ours.
func TestPacketsMeetWhatEvalSays(t *testing.T) {
	for _, f := range inet.Families {
		t.Run(map[inet.Family]string{inet.IPv4: "ipv4", inet.IPv6: "ipv6"}[f], func(t *testing.T) {
			w := newWorld(t, f)
			met := map[string]int{}
			for _, network := range []string{"tcp", "udp"} {
				for _, f := range w.flows() {
					met[w.verify(t, f, network)]++
				}
			}
			for _, want := range []string{"dropped", refused, ownPod + " sees the client", ownPod + " sees the node",
				farPod + " sees the client", farPod + " sees the node", ourNode + " sees the client"} {
				if met[want] == 0 {
					t.Errorf("no flow met first: %s; met %v", want, met)
				}
			}
		})
	}
}
