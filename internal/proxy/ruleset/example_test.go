// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// example is a program with a front for each branch, and the addresses of its world: two nodes, ours with
// the pods own and local, the other one with the pod far, and two hosts outside.
type example struct {
	family                           inet.Family
	node                             netip.Addr
	own, local, far                  netip.Addr
	office, stranger                 netip.Addr
	web, none, quiet, sticky, unused netip.Addr // of Services
	admitted, offset                 netip.Addr // external
}

// The ports of the example.
const (
	port       = 80
	target     = 8080
	nodePort   = 30080
	stickyPort = 30081
	otherPort  = 81
)

func newExample(f inet.Family, node netip.Addr) example {
	a := func(four, six string) netip.Addr {
		if f == inet.IPv6 {
			return netip.MustParseAddr(six)
		}
		return netip.MustParseAddr(four)
	}
	return example{family: f, node: node,
		own: a("10.244.1.7", "fd00:244:1::7"), local: a("10.244.1.3", "fd00:244:1::3"),
		far: a("10.244.2.7", "fd00:244:2::7"), office: a("203.0.113.5", "2001:db8:1::5"),
		stranger: a("192.0.2.66", "2001:db8:2::66"),
		web:      a("10.96.0.1", "fd00:96::1"), none: a("10.96.0.2", "fd00:96::2"), quiet: a("10.96.0.3", "fd00:96::3"),
		sticky: a("10.96.0.4", "fd00:96::4"), unused: a("10.96.0.99", "fd00:96::99"),
		admitted: a("198.18.0.1", "2001:db8:f::1"), offset: a("198.18.0.2", "2001:db8:f::2")}
}

// program returns the program of our node.
func (e example) program() *program.Program {
	around := func(a netip.Addr, four, six int) netip.Prefix {
		if e.family == inet.IPv6 {
			return netip.PrefixFrom(a, six).Masked()
		}
		return netip.PrefixFrom(a, four).Masked()
	}
	p := &program.Program{Family: e.family,
		ServiceRanges: []netip.Prefix{around(e.web, 16, 112)},
		NodeAddresses: []netip.Addr{e.node},
		ClusterPods:   []netip.Prefix{around(e.own, 24, 64), around(e.far, 24, 64)},
		NodePods:      []netip.Prefix{around(e.own, 24, 64)},
		Loops:         immutable.Of(inet.Element{Addr: e.own}),
		Admissions: []program.Admission{{Name: "office", Ranges: []netip.Prefix{
			around(e.own, 24, 64), netip.PrefixFrom(e.office, e.office.BitLen())}}},
	}
	for _, a := range []netip.Addr{e.web, e.none, e.quiet, e.sticky} {
		p.ClusterAddresses = p.ClusterAddresses.With(inet.Element{Addr: a})
	}
	both := program.Pick{Count: 2, Masquerade: program.Strangers}
	reject := program.Pick{Otherwise: program.Reject}
	for _, protocol := range []inet.Protocol{inet.TCP, inet.UDP, inet.SCTP} {
		add := func(a netip.Addr, port uint16, r program.Route, backends ...netip.Addr) {
			r.Front = program.Front{Addr: a, Protocol: protocol, Port: port}
			p.Routes = p.Routes.With(r)
			for i, b := range backends {
				p.Slots = p.Slots.With(program.Slot{Front: r.Front, Number: uint16(i), Sticky: r.Sticky,
					Backend: program.Backend{Addr: b, Port: target}})
			}
		}
		add(e.web, port, program.Route{Inside: both, Outside: both}, e.own, e.far)
		add(e.none, port, program.Route{Inside: reject, Outside: reject})
		add(e.quiet, port, program.Route{Inside: program.Pick{}, Outside: reject})
		add(e.sticky, port, program.Route{Inside: both, Outside: both, Sticky: 100}, e.own, e.far)
		add(e.admitted, port, program.Route{Inside: both, Outside: program.Pick{Count: 1}, Admission: "office"},
			e.own, e.far)
		add(e.offset, port, program.Route{Inside: program.Pick{Count: 2},
			Outside: program.Pick{First: 1, Count: 1, Masquerade: program.Always}}, e.own, e.far)
		add(netip.Addr{}, nodePort, program.Route{Inside: both, Outside: program.Pick{Count: 1}}, e.own, e.far)
		all := program.Pick{Count: 2, Masquerade: program.Always}
		add(netip.Addr{}, stickyPort, program.Route{Inside: all, Outside: all, Sticky: 100}, e.own, e.far)
	}
	return p
}

// examples returns one of each family, with a made-up address of the node.
func examples() []example {
	return []example{newExample(inet.IPv4, netip.MustParseAddr("172.18.0.1")),
		newExample(inet.IPv6, netip.MustParseAddr("fd00:18::1"))}
}
