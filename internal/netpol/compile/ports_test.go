// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

func tcp(first, last uint16) cluster.Port {
	return cluster.Port{Protocol: cluster.TCP, First: first, Last: last}
}

func singles(n int) []cluster.Port {
	var list []cluster.Port
	for i := range n {
		list = append(list, tcp(uint16(1000+2*i), uint16(1000+2*i)))
	}
	return list
}

func TestPortsBecomeFewConditions(t *testing.T) {
	anyUDP := cluster.Port{Protocol: cluster.UDP, Any: true}
	tests := []struct {
		name  string
		ports []cluster.Port
		peers int
		want  []string
	}{
		{"none", nil, 1, nil},
		{"a port", []cluster.Port{tcp(80, 80)}, 1, []string{"tcp 80"}},
		{"the same port twice", []cluster.Port{tcp(80, 80), tcp(80, 80)}, 1, []string{"tcp 80"}},
		{"ranges that overlap", []cluster.Port{tcp(90, 110), tcp(80, 100)}, 1, []string{"tcp 80-110"}},
		{"a port inside a range", []cluster.Port{tcp(80, 100), tcp(90, 90)}, 1, []string{"tcp 80-100"}},
		{"ports that touch stay as written", []cluster.Port{tcp(81, 81), tcp(80, 80)}, 1, []string{"tcp 80", "tcp 81"}},
		{"a whole protocol swallows its ports only", []cluster.Port{anyUDP,
			{Protocol: cluster.UDP, First: 53, Last: 53}, tcp(53, 53)}, 1, []string{"tcp 53", "udp"}},
		{"the whole range", []cluster.Port{tcp(1, 65535)}, 1, []string{"tcp 1-65535"}},
		{"up to eight ports are spelled out", singles(maxPorts), 1, []string{"tcp 1000", "tcp 1002", "tcp 1004",
			"tcp 1006", "tcp 1008", "tcp 1010", "tcp 1012", "tcp 1014"}},
		{"more become a set", append(singles(maxPorts+1), tcp(1, 9)), 1, []string{"tcp port @portlist-"}},
		{"a single port beside them is none", append(singles(maxPorts+1), cluster.Port{Protocol: cluster.UDP, First: 53,
			Last: 53}), 1, []string{"tcp port @portlist-", "udp 53"}},
		{"ports that touch and are many are one range", append(singles(maxPorts), tcp(900, 1020)), 1,
			[]string{"tcp 900-1020"}},
		{"few ports for many peers become one", singles(4), 5, []string{"tcp port @portlist-"}},
		{"few ports for few peers do not", singles(4), 4, []string{"tcp 1000", "tcp 1002", "tcp 1004", "tcp 1006"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			c := &compiled{sets: map[string]*setRef{}}
			for _, r := range c.portConditions(tt.ports, tt.peers) {
				text := r.String()
				if before, _, ok := strings.Cut(text, "portlist-"); ok {
					text = before + "portlist-"
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever ports a rule lists, the conditions match the same protocols and
// ports.
func TestPortConditionsMatchWhatWasListed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ports []cluster.Port
		for range rapid.IntRange(0, 14).Draw(t, "ports") {
			p := cluster.Port{Protocol: rapid.SampledFrom(cluster.Protocols[:]).Draw(t, "protocol")}
			if p.Any = rapid.IntRange(0, 9).Draw(t, "any") == 9; !p.Any {
				p.First = rapid.Uint16Range(1, 40).Draw(t, "first")
				p.Last = p.First + rapid.SampledFrom([]uint16{0, 0, 0, 1, 5}).Draw(t, "width")
			}
			ports = append(ports, p)
		}
		c := &compiled{sets: map[string]*setRef{}}
		peers := rapid.IntRange(1, 9).Draw(t, "peers")
		prog := &program.Program{Chains: []*program.Chain{{Name: "c", Direction: program.Ingress,
			Rules: c.portConditions(ports, peers)}}}
		for _, s := range c.sets {
			prog.Sets = append(prog.Sets, &s.set)
		}
		to := netip.MustParseAddr("10.0.0.1")
		prog.Pods = []program.Pod{{Addr: to, Ingress: "c"}}
		for _, protocol := range cluster.Protocols {
			for port := range uint16(50) {
				want := false
				for _, p := range ports {
					want = want || p.Protocol == protocol && (p.Any || p.First <= port && port <= p.Last)
				}
				got := program.Eval(prog, program.Flow{Protocol: inet.Protocol(protocol), Dst: to,
					DstPort: port}) == program.Accept
				if got != want {
					t.Fatalf("%v: %s %d matches: %t\n%s", ports, protocol, port, got, prog)
				}
			}
		}
	})
}

// Ranges that touch are one: fewer elements, and the same addresses.
func TestRangesThatTouchAreJoined(t *testing.T) {
	port := func(n uint16) inet.Element { return inet.Element{Port: n} }
	next := func(e inet.Element) inet.Element { return port(e.Port + 1) }
	got := mergeRanges([]inet.Range{{First: port(6), Last: port(9)}, {First: port(1), Last: port(5)},
		{First: port(11), Last: port(12)}}, next)
	if want := []inet.Range{{First: port(1), Last: port(9)}, {First: port(11), Last: port(12)}}; !slices.Equal(got,
		want) {
		t.Errorf("ranges are %v, want %v", got, want)
	}
}
