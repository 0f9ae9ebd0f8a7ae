// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func elements(list ...inet.Element) inet.Elements {
	var e inet.Elements
	for _, x := range list {
		e = e.With(x)
	}
	return e
}

// ingressOf is a program with one pod, 10.0.0.1, that has one ingress rule.
func ingressOf(r Rule, sets ...*Set) *Program {
	return &Program{
		Pods:   []Pod{{Addr: addr("10.0.0.1"), Name: "shop/web", Ingress: "in"}},
		Chains: []*Chain{{Name: "in", Direction: Ingress, Family: inet.IPv4, Rules: []Rule{r}}},
		Sets:   sets,
	}
}

func TestEachConditionOfARule(t *testing.T) {
	web := &Set{Name: "s", Kind: inet.Addrs, Family: inet.IPv4,
		Elements: elements(inet.Element{Addr: addr("10.0.0.9")})}
	named := &Set{Name: "s", Kind: inet.AddrPorts, Family: inet.IPv4,
		Elements: elements(inet.Element{Addr: addr("10.0.0.1"), Port: 80})}
	list := &Set{Name: "s", Kind: inet.PortRanges,
		Ranges: []inet.Range{{First: inet.Element{Port: 53}, Last: inet.Element{Port: 53}},
			{First: inet.Element{Port: 80}, Last: inet.Element{Port: 90}}}}
	blocks := &Set{Name: "s", Kind: inet.AddrRanges, Family: inet.IPv4,
		Ranges: []inet.Range{{First: inet.Element{Addr: addr("10.0.0.8")},
			Last: inet.Element{Addr: addr("10.0.0.14")}}}}
	hole := Block{CIDR: netip.MustParsePrefix("10.0.0.0/8"),
		Except: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32")}}
	nine, two := addr("10.0.0.9"), addr("10.0.0.2")
	tests := []struct {
		name     string
		program  *Program
		src      netip.Addr
		protocol inet.Protocol
		port     uint16
		want     Verdict
	}{
		{"no condition", ingressOf(Rule{}), nine, 1, 0, Accept},
		{"protocol", ingressOf(Rule{Protocol: inet.TCP}), nine, inet.TCP, 1, Accept},
		{"another protocol", ingressOf(Rule{Protocol: inet.TCP}), nine, inet.UDP, 1, Drop},
		{"first port", ingressOf(Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 90}}), nine, inet.TCP,
			80, Accept},
		{"last port", ingressOf(Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 90}}), nine, inet.TCP,
			90, Accept},
		{"port below", ingressOf(Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 90}}), nine, inet.TCP,
			79, Drop},
		{"port above", ingressOf(Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 90}}), nine, inet.TCP,
			91, Drop},
		{"block", ingressOf(Rule{Block: hole}), two, inet.TCP, 80, Accept},
		{"hole of a block", ingressOf(Rule{Block: hole}), nine, inet.TCP, 80, Drop},
		{"outside a block", ingressOf(Rule{Block: hole}), addr("11.0.0.1"), inet.TCP, 80, Drop},
		{"peer in the set", ingressOf(Rule{PeerSet: "s"}, web), nine, inet.TCP, 80, Accept},
		{"peer not in the set", ingressOf(Rule{PeerSet: "s"}, web), two, inet.TCP, 80, Drop},
		{"peer in a set of ranges", ingressOf(Rule{PeerSet: "s"}, blocks), nine, inet.TCP, 80, Accept},
		{"peer not in a set of ranges", ingressOf(Rule{PeerSet: "s"}, blocks), two, inet.TCP, 80, Drop},
		{"destination and port in the set", ingressOf(Rule{Protocol: inet.TCP, DestSet: "s"}, named), nine, inet.TCP,
			80, Accept},
		{"another port of the destination", ingressOf(Rule{Protocol: inet.TCP, DestSet: "s"}, named), nine, inet.TCP,
			81, Drop},
		{"protocol and port in the set", ingressOf(Rule{Protocol: inet.UDP, PortSet: "s"}, list), nine, inet.UDP, 80,
			Accept},
		{"the port of another protocol", ingressOf(Rule{Protocol: inet.UDP, PortSet: "s"}, list), nine, inet.TCP, 80,
			Drop},
		{"a set that does not exist", ingressOf(Rule{PeerSet: "s"}), nine, inet.TCP, 80, Drop},
		{"a chain that does not exist", &Program{Pods: []Pod{{Addr: addr("10.0.0.1"), Ingress: "in"}}}, nine, inet.TCP,
			80, Drop},
		{"one of two conditions is not met", ingressOf(Rule{Protocol: inet.TCP, PeerSet: "s"}, web), nine, inet.UDP, 80,
			Drop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := Flow{Protocol: tt.protocol, Src: tt.src, Dst: addr("10.0.0.1"), DstPort: tt.port}
			if got := Eval(tt.program, f); got != tt.want {
				t.Errorf("verdict = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestBothEndsAreJudgedInOrder(t *testing.T) {
	a, b, c, node := addr("10.0.0.1"), addr("10.0.0.2"), addr("10.0.0.3"), addr("192.168.0.1")
	p := &Program{
		Pods: []Pod{{Addr: a, Egress: "to-b"}, {Addr: b, Ingress: "none"}, {Addr: c}},
		Chains: []*Chain{
			{Name: "none", Direction: Ingress, Family: inet.IPv4},
			{Name: "to-b", Direction: Egress, Family: inet.IPv4,
				Rules: []Rule{{Block: Block{CIDR: netip.MustParsePrefix("10.0.0.2/32")}}}},
		},
	}
	tests := []struct {
		name             string
		src, dst         netip.Addr
		fromNode, toNode bool
		want             Verdict
	}{
		{"egress allows, ingress does not", a, b, false, false, Drop},
		{"egress does not allow", a, c, false, false, Drop},
		{"neither end is isolated", c, addr("10.0.0.9"), false, false, Accept},
		{"only the destination is isolated", c, b, false, false, Drop},
		{"an isolated pod to itself", b, b, false, false, Accept},
		{"an isolated pod to itself, for egress", a, a, false, false, Accept},
		{"an address that is no pod, to itself", node, node, false, false, Accept},
		{"the node to its own pod", node, b, true, false, Accept},
		{"the node with the address that an isolated pod claims", a, c, true, false, Accept},
		{"another node", addr("192.168.0.2"), b, false, false, Drop},
		{"an isolated pod to its own node", a, node, false, true, Drop},
		{"an open pod to its own node", c, node, false, true, Accept},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := Flow{Protocol: inet.TCP, Src: tt.src, Dst: tt.dst, DstPort: 80, FromNode: tt.fromNode,
				ToNode: tt.toNode}
			if got := Eval(p, f); got != tt.want {
				t.Errorf("verdict = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTheZeroVerdictIsDrop(t *testing.T) {
	var v Verdict
	if v != Drop || v.String() != "drop" {
		t.Errorf("the zero verdict is %s", v)
	}
}

func TestProgramText(t *testing.T) {
	p := ingressOf(Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 90}, PeerSet: "s",
		Block: Block{CIDR: netip.MustParsePrefix("10.0.0.0/8"),
			Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}, Comment: "shop/p ingress[0]"},
		&Set{Name: "d", Kind: inet.AddrPorts, Family: inet.IPv4,
			Elements: elements(inet.Element{Addr: addr("10.0.0.2"), Port: 9},
				inet.Element{Addr: addr("10.0.0.1"), Port: 80})},
		&Set{Name: "l", Kind: inet.PortRanges, Ranges: []inet.Range{{First: inet.Element{Port: 53},
			Last: inet.Element{Port: 53}},
			{First: inet.Element{Port: 80}, Last: inet.Element{Port: 90}}}},
		&Set{Name: "s", Kind: inet.AddrRanges, Family: inet.IPv4, Comment: "blocks",
			Ranges: []inet.Range{inet.AddrRange(netip.MustParsePrefix("10.0.0.0/8")),
				{First: inet.Element{Addr: addr("11.0.0.1")}, Last: inet.Element{Addr: addr("11.0.0.9")}}}},
	)
	p.Pods = append(p.Pods, Pod{Addr: addr("fd00::1"), Name: "shop/open"})
	p.Chains[0].Rules = append(p.Chains[0].Rules, Rule{})
	want := `pod 10.0.0.1 shop/web ingress in egress open
pod fd00::1 shop/open ingress open egress open
chain in
  tcp 80-90 peer 10.0.0.0/8 except 10.1.0.0/16 peer @s # shop/p ingress[0]
  any # 
set d: addresses and ports # 
  10.0.0.1 . 80
  10.0.0.2 . 9
set l: ranges of ports # 
  53
  80-90
set s: ranges of addresses # blocks
  10.0.0.0/8
  11.0.0.1-11.0.0.9
`
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}
