// SPDX-License-Identifier: Apache-2.0

// Package genproxy draws random programs of the service proxy, and packets for them. There are so few
// addresses and ports that packets often meet a front, clients are often admitted, and backends are often
// clients, too.
//
// It draws only programs that Check accepts, and knows no backend.
package genproxy

import (
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// The last part but one of the addresses that programs and packets are about.
const (
	services = 0 // .1 to .4 are fronts, .4 is outside of the range
	nodes    = 1 // .0 takes node ports
	pods     = 2 // .0 to .4 are backends, .0 and .1 are on this node, .0 to .3 of the cluster
)

// Addr returns an address of a family.
func Addr(f inet.Family, net, host int) netip.Addr {
	if f == inet.IPv6 {
		return netip.AddrFrom16([16]byte{0xfd, 13: byte(net), 15: byte(host)})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(net), byte(host)})
}

// prefix returns the range of the last bits of an address.
func prefix(f inet.Family, net, host, bits int) netip.Prefix {
	a := Addr(f, net, host)
	return netip.PrefixFrom(a, a.BitLen()-bits)
}

// Program draws a program of a family.
func Program(t *rapid.T, f inet.Family) *program.Program {
	p := &program.Program{Family: f, ServiceRanges: []netip.Prefix{prefix(f, services, 0, 2)},
		NodeAddresses: []netip.Addr{Addr(f, nodes, 0)}, ClusterPods: []netip.Prefix{prefix(f, pods, 0, 2)},
		NodePods:   []netip.Prefix{prefix(f, pods, 0, 1)},
		Admissions: []program.Admission{{Name: "a", Ranges: []netip.Prefix{prefix(f, pods, 2, 1)}}}}
	for range rapid.IntRange(0, 6).Draw(t, "fronts") {
		p = With(t, p)
	}
	return p
}

// Change draws a program that differs from another one in a front: that comes, goes, or is drawn anew. The
// lists change now and then, too.
func Change(t *rapid.T, p *program.Program) *program.Program {
	fronts := Fronts(p)
	if rapid.IntRange(0, 5).Draw(t, "lists change") == 0 {
		next := *p
		next.ServiceRanges = []netip.Prefix{prefix(p.Family, services, 0, rapid.IntRange(1, 3).Draw(t, "range"))}
		next.NodePods = []netip.Prefix{prefix(p.Family, pods, 0, rapid.IntRange(0, 2).Draw(t, "node pods"))}
		next.ClusterPods = append(next.NodePods[:1:1], prefix(p.Family, pods, 2, 1))
		next.Admissions = []program.Admission{{Name: "a", Ranges: []netip.Prefix{
			prefix(p.Family, pods, 2, rapid.IntRange(0, 1).Draw(t, "admitted"))}}}
		p = &next
	}
	if len(fronts) == 0 || rapid.IntRange(0, 3).Draw(t, "a front comes") == 0 {
		return With(t, p)
	}
	f := rapid.SampledFrom(fronts).Draw(t, "front")
	p = Without(p, f)
	if rapid.IntRange(0, 3).Draw(t, "it goes") == 0 {
		return p
	}
	return withFront(t, p, f)
}

// Fronts returns the fronts of a program, sorted.
func Fronts(p *program.Program) (list []program.Front) {
	for r := range p.Routes.All() {
		list = append(list, r.Front)
	}
	slices.SortFunc(list, program.Front.Compare)
	return list
}

// Without returns the program without a front.
func Without(p *program.Program, f program.Front) *program.Program {
	next := *p
	for r := range p.Routes.All() {
		if r.Front == f {
			next.Routes = next.Routes.Without(r)
		}
	}
	for s := range p.Slots.All() {
		if s.Front == f {
			next.Slots = next.Slots.Without(s)
		}
	}
	return &next
}

// With draws a front with its slots, and adds it unless the program has it already.
func With(t *rapid.T, p *program.Program) *program.Program {
	small := func(name string, n int) int { return rapid.IntRange(0, n).Draw(t, name) }
	f := program.Front{Protocol: rapid.SampledFrom([]inet.Protocol{inet.TCP, inet.UDP, inet.SCTP}).Draw(t, "protocol"),
		Port: uint16(80 + small("port", 1))}
	if a := small("address", 4); a > 0 {
		f.Addr = Addr(p.Family, services, a)
	}
	if _, twice := p.Route(f); twice {
		return p
	}
	return withFront(t, p, f)
}

// withFront draws what is behind a front.
func withFront(t *rapid.T, p *program.Program, f program.Front) *program.Program {
	small := func(name string, n int) int { return rapid.IntRange(0, n).Draw(t, name) }
	next := *p
	if f.Addr.IsValid() && rapid.Bool().Draw(t, "cluster address") {
		next.ClusterAddresses = next.ClusterAddresses.With(inet.Element{Addr: f.Addr})
	}
	sticky := rapid.SampledFrom([]program.Seconds{0, 1, 100}).Draw(t, "sticky")
	n := small("slots", 5)
	for i := range n {
		to := program.Backend{Addr: Addr(p.Family, pods, i), Port: 8080}
		next.Slots = next.Slots.With(program.Slot{Front: f, Number: uint16(i), Sticky: sticky, Backend: to})
		if rapid.Bool().Draw(t, "own") {
			next.Loops = next.Loops.With(inet.Element{Addr: to.Addr})
		}
	}
	pick := func() program.Pick {
		first := small("first", n)
		count, answer, masquerade := small("count", n-first), small("answer", 1), small("masquerade", 2)
		if count == 0 { // what means the same is the same value
			return program.Pick{Otherwise: program.Answer(answer)}
		}
		return program.Pick{First: uint16(first), Count: uint16(count), Masquerade: program.Masquerade(masquerade)}
	}
	r := program.Route{Front: f, Inside: pick(), Admission: rapid.SampledFrom([]string{"", "a"}).Draw(t, "admission"),
		Sticky: sticky}
	r.Schedule.Scheduler = program.Scheduler(small("scheduler", int(program.Maglev)))
	r.Schedule.Options = program.Options(small("options", 7))
	if r.Outside = r.Inside; rapid.Bool().Draw(t, "inside differs") {
		r.Outside = pick()
	}
	next.Routes = next.Routes.With(r)
	return &next
}

// Packet draws a packet, in most cases to a front of the program.
func Packet(t *rapid.T, p *program.Program) program.Packet {
	some := func(name string, net int) netip.Addr { return Addr(p.Family, net, rapid.IntRange(0, 5).Draw(t, name)) }
	packet := program.Packet{Protocol: rapid.SampledFrom([]inet.Protocol{1, inet.TCP, inet.UDP}).Draw(t, "protocol"),
		Src: some("source", pods), Dst: some("destination", rapid.IntRange(services, pods).Draw(t, "net")),
		DstPort: uint16(rapid.IntRange(79, 81).Draw(t, "port")), FromNode: rapid.Bool().Draw(t, "from the node"),
		At: program.Seconds(rapid.IntRange(0, 3).Draw(t, "at"))}
	if fronts := Fronts(p); len(fronts) > 0 && rapid.IntRange(0, 3).Draw(t, "to a front") > 0 {
		f := rapid.SampledFrom(fronts).Draw(t, "front")
		packet.Dst, packet.Protocol, packet.DstPort = f.Addr, f.Protocol, f.Port
		if !f.Addr.IsValid() {
			packet.Dst = p.NodeAddresses[0]
		}
	}
	return packet
}
