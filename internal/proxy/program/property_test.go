// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
)

// drawProgram draws a program with few addresses, so that they meet.
func drawProgram(t *rapid.T) *Program {
	small := func(name string, n int) int { return rapid.IntRange(0, n).Draw(t, name) }
	p := &Program{Family: inet.IPv4, ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")},
		NodeAddresses: []netip.Addr{addr("10.0.1.0")}, ClusterPods: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/30")},
		NodePods:   []netip.Prefix{netip.MustParsePrefix("10.0.2.0/31")},
		Admissions: []Admission{{Name: "a", Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.2.2/31")}}}}
	pick := func(slots int) Pick {
		first := small("first", slots)
		return Pick{First: uint16(first), Count: uint16(small("count", slots-first)), Otherwise: Answer(small("answer", 1)),
			Masquerade: Masquerade(small("masquerade", 2))}
	}
	for range small("fronts", 6) {
		f := Front{netip.Addr{}, rapid.SampledFrom([]inet.Protocol{inet.TCP, inet.UDP}).Draw(t, "protocol"), uint16(80 + small("port", 1))}
		if a := small("front", 4); a > 0 {
			f.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(a)})
			if rapid.Bool().Draw(t, "cluster address") {
				p.ClusterAddresses = p.ClusterAddresses.With(inet.Element{Addr: f.Addr})
			}
		}
		if _, twice := p.Route(f); twice {
			continue
		}
		sticky := Seconds(small("sticky", 2))
		n := small("slots", 5)
		for i := range n {
			to := Backend{netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}), 8080}
			p.Slots = p.Slots.With(Slot{f, uint16(i), sticky, to})
			if small("own", 1) == 1 {
				p.Loops = p.Loops.With(inet.Element{Addr: to.Addr})
			}
		}
		p.Routes = p.Routes.With(Route{f, pick(n), pick(n), rapid.SampledFrom([]string{"", "a"}).Draw(t, "admission"), sticky})
	}
	return p
}

// drawPacket draws a packet, in most cases to a front of the program.
func drawPacket(t *rapid.T, p *Program) Packet {
	some := func(name string, three int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, 0, byte(three), byte(rapid.IntRange(0, 5).Draw(t, name))})
	}
	packet := Packet{Protocol: rapid.SampledFrom([]inet.Protocol{1, inet.TCP, inet.UDP}).Draw(t, "protocol"),
		Src: some("source", 2), Dst: some("destination", rapid.IntRange(0, 2).Draw(t, "net")),
		DstPort: uint16(rapid.IntRange(79, 81).Draw(t, "port")), FromNode: rapid.Bool().Draw(t, "from the node"),
		At: Seconds(rapid.IntRange(0, 3).Draw(t, "at"))}
	routes := slices.SortedFunc(p.Routes.All(), func(a, b Route) int { return a.Front.Compare(b.Front) })
	if len(routes) > 0 && rapid.IntRange(0, 3).Draw(t, "to a front") > 0 {
		f := rapid.SampledFrom(routes).Draw(t, "route").Front
		packet.Dst, packet.Protocol, packet.DstPort = f.Addr, f.Protocol, f.Port
		if !f.Addr.IsValid() {
			packet.Dst = p.NodeAddresses[0]
		}
	}
	return packet
}

// A packet is forwarded to backends of its front's pick only, and every one of them is met.
func TestEveryBackendOfAPickIsMetAndNoOther(t *testing.T) {
	met := map[Fate]int{}
	rapid.Check(t, func(t *rapid.T) {
		p := drawProgram(t)
		packet := drawPacket(t, p)
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		seen := map[Backend]bool{}
		count := 1
		for i := 0; i < count; i++ {
			o, _ := Eval(p, packet, Memory{}, func(n int) int { count = n; return i })
			met[o.Fate]++
			if o.Fate == Forwarded {
				seen[o.Backend] = true
			} else if o.Backend != (Backend{}) || o.Masqueraded {
				t.Fatalf("%s has a backend or is masqueraded: %+v", o, o)
			}
		}
		f := Front{packet.Dst, packet.Protocol, packet.DstPort}
		r, ok := p.Route(f)
		if node := slices.Contains(p.NodeAddresses, packet.Dst); node && !ok {
			r, ok = p.Route(Front{netip.Addr{}, packet.Protocol, packet.DstPort})
		}
		if len(seen) == 0 {
			return
		}
		want := p.Backends(r.Front, p.PickOf(r, packet))
		if !ok || len(want) != len(seen) || slices.ContainsFunc(want, func(b Backend) bool { return !seen[b] }) {
			t.Fatalf("met %v, want %v", seen, want)
		}
	})
	for f := Dropped; f <= NotOurs; f++ {
		if met[f] == 0 {
			t.Errorf("no packet is %s", f)
		}
	}
}

// What the memory holds never leads to a backend that the pick has not, and a client that comes
// back in time meets the same one.
func TestMemoryKeepsToThePick(t *testing.T) {
	kept := 0
	rapid.Check(t, func(t *rapid.T) {
		var m Memory
		last := map[string]Outcome{}
		p := drawProgram(t)
		for at := range Seconds(8) {
			if rapid.IntRange(0, 3).Draw(t, "another program") == 0 {
				p, last = drawProgram(t), map[string]Outcome{}
			}
			packet := drawPacket(t, p)
			packet.At = at
			var o Outcome
			o, m = Eval(p, packet, m, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
			r, ok := p.Route(Front{packet.Dst, packet.Protocol, packet.DstPort})
			if o.Fate != Forwarded || !ok {
				continue
			}
			if !slices.Contains(p.Backends(r.Front, p.PickOf(r, packet)), o.Backend) {
				t.Fatalf("%s is not in the pick", o)
			}
			key := fmt.Sprint(packet.Src, r.Front, packet.FromNode)
			if before, ok := last[key]; ok && r.Sticky >= 8 && before != o {
				t.Fatalf("the client met %s, then %s", before, o)
			}
			if r.Sticky > 0 {
				kept++
			}
			last[key] = o
		}
	})
	if kept == 0 {
		t.Error("no client was remembered")
	}
}

// Two programs have the same text exactly if they have the same parts.
func TestTextTellsProgramsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawProgram(t), drawProgram(t)
		same := a.Routes.Len() == b.Routes.Len() && a.Slots.Len() == b.Slots.Len() && a.Loops.Len() == b.Loops.Len() &&
			a.ClusterAddresses.Len() == b.ClusterAddresses.Len()
		for r := range a.Routes.All() {
			same = same && b.Routes.Has(r)
		}
		for s := range a.Slots.All() {
			same = same && b.Slots.Has(s)
		}
		for e := range a.Loops.All() {
			same = same && b.Loops.Has(e)
		}
		for e := range a.ClusterAddresses.All() {
			same = same && b.ClusterAddresses.Has(e)
		}
		if got := a.String() == b.String(); got != same {
			t.Fatalf("same text: %t, same parts: %t\n%s\n%s", got, same, a, b)
		}
	})
}

func TestText(t *testing.T) {
	const want = `family IPv4
front node port 30080/tcp inside 0+2 masquerade strangers outside 0+1
front 10.96.0.1 port 53/udp inside 0+1 outside 0+1 masquerade
front 10.96.0.1 port 80/tcp inside 0+2 masquerade strangers outside 0+2 masquerade strangers
front 10.96.0.2 port 80/tcp inside reject outside reject
front 10.96.0.3 port 80/tcp inside drop outside reject
front 10.96.0.4 port 80/tcp inside 0+2 masquerade strangers outside 0+2 masquerade strangers sticky 60s
front 192.0.2.1 port 443/tcp inside 0+2 masquerade strangers outside 1+1 admits office
slot node port 30080/tcp 0: 10.244.0.7:8080
slot node port 30080/tcp 1: 10.244.1.7:8080
slot 10.96.0.1 port 53/udp 0: 10.244.0.9:53
slot 10.96.0.1 port 80/tcp 0: 10.244.0.7:8080
slot 10.96.0.1 port 80/tcp 1: 10.244.1.7:8080
slot 10.96.0.4 port 80/tcp 0: 10.244.0.7:8080 sticky 60s
slot 10.96.0.4 port 80/tcp 1: 10.244.1.7:8080 sticky 60s
slot 192.0.2.1 port 443/tcp 0: 10.244.0.7:8080
slot 192.0.2.1 port 443/tcp 1: 10.244.1.7:8080
cluster address 10.96.0.1
cluster address 10.96.0.2
cluster address 10.96.0.3
cluster address 10.96.0.4
service range 10.96.0.0/16
node address 198.51.100.1
cluster pods 10.244.0.0/16
node pods 10.244.0.0/24
loop 10.244.0.7
loop 10.244.0.9
admission office
  range 10.244.0.0/24
  range 203.0.113.0/24
`
	if got := example().String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Contains((&Program{Family: inet.IPv6}).String(), "front") {
		t.Error("an empty program has a front")
	}
}
