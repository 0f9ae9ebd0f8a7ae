// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The cast: web lets only the peer in, at port 80 of TCP and UDP; jail may send
// to port 53 only; open is not isolated.
var (
	web, jail, open = addr("10.0.0.1"), addr("10.0.0.2"), addr("10.0.0.3")
	peer, stranger  = addr("10.0.1.1"), addr("10.0.1.2")
	vip, own, other = addr("10.96.0.1"), addr("172.30.0.1"), addr("172.30.0.2")
	web6, stranger6 = addr("fd00::1"), addr("fd00:1::2")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func sampleProgram() *program.Program {
	var peers inet.Elements
	peers = peers.With(inet.Element{Addr: peer})
	return &program.Program{
		Pods: []program.Pod{
			{Addr: web, Name: "shop/web", Ingress: "ingress4-web"},
			{Addr: jail, Name: "shop/jail", Egress: "egress4-jail"},
			{Addr: open, Name: "shop/open"},
			{Addr: web6, Name: "shop/web", Ingress: "ingress6-web"},
		},
		Chains: []*program.Chain{
			{Name: "egress4-jail", Direction: program.Egress, Family: inet.IPv4, Rules: []program.Rule{
				{Protocol: inet.UDP, Ports: inet.PortRange{First: 53, Last: 53}}}},
			{Name: "ingress4-web", Direction: program.Ingress, Family: inet.IPv4, Rules: []program.Rule{
				{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 80}, PeerSet: "pods4-peer"},
				{Protocol: inet.UDP, Ports: inet.PortRange{First: 80, Last: 80}, PeerSet: "pods4-peer"}}},
			{Name: "ingress6-web", Direction: program.Ingress, Family: inet.IPv6},
		},
		Sets: []*program.Set{{Name: "pods4-peer", Kind: inet.Addrs, Family: inet.IPv4, Elements: peers}},
	}
}

// plain is a connection without translation.
func plain(p inet.Protocol, src netip.Addr, sport uint16, dst netip.Addr, dport uint16) inet.Connection {
	return inet.Connection{Protocol: p, Orig: inet.Tuple{Src: src, SrcPort: sport, Dst: dst, DstPort: dport},
		Reply: inet.Tuple{Src: dst, SrcPort: dport, Dst: src, DstPort: sport}}
}

// to translates the destination of a connection, as a Service does.
func to(e inet.Connection, dst netip.Addr, port uint16) inet.Connection {
	e.Reply.Src, e.Reply.SrcPort = dst, port
	return e
}

// behind hides the source of a connection, as masquerading does.
func behind(e inet.Connection, src netip.Addr, port uint16) inet.Connection {
	e.Reply.Dst, e.Reply.DstPort = src, port
	return e
}

func pickedUp(e inet.Connection) inet.Connection {
	e.PickedUp = true
	return e
}

func TestAnEntryIsJudgedByItsRealEnds(t *testing.T) {
	const tcp, udp, sctp = inet.TCP, inet.UDP, inet.SCTP
	tests := []struct {
		name   string
		entry  inet.Connection
		reason Reason // 0: goes on
		block  string // the revival
	}{
		{"the peer at the port", plain(tcp, peer, 40000, web, 80), 0, ""},
		{"the peer at another port", plain(tcp, peer, 40000, web, 81), Ingress, "tcp 10.0.0.1:81 > 10.0.1.1:40000"},
		{"a stranger", plain(udp, stranger, 40000, web, 80), Ingress, "udp 10.0.0.1:80 > 10.0.1.2:40000"},
		{"a stranger, SCTP", plain(sctp, stranger, 40000, web, 80), Ingress, "sctp 10.0.0.1:80 > 10.0.1.2:40000"},
		{"a stranger, IPv6", plain(tcp, stranger6, 40000, web6, 80), Ingress, "tcp [fd00::1]:80 > [fd00:1::2]:40000"},
		{"a stranger by a Service", to(plain(tcp, stranger, 40000, vip, 8000), web, 80), Ingress,
			"tcp 10.0.0.1:80 > 10.0.1.2:40000"},
		{"the peer by a Service", to(plain(tcp, peer, 40000, vip, 8000), web, 80), 0, ""},
		{"the peer by a Service with the pod's port before and another behind",
			to(plain(tcp, peer, 40000, vip, 80), web, 8080), Ingress,
			"tcp 10.0.0.1:8080 > 10.0.1.1:40000"},
		{"a stranger by a NodePort, masqueraded", behind(to(plain(tcp, stranger, 40000, own, 30080), web, 80), own,
			50000), Ingress, ""},
		{"the peer by a NodePort, masqueraded", behind(to(plain(tcp, peer, 40000, own, 30080), web, 80), own, 50000), 0,
			""},
		{"by a NodePort of another node", plain(tcp, other, 40000, web, 80), Ingress,
			"tcp 10.0.0.1:80 > 172.30.0.2:40000"},
		{"the node", plain(tcp, own, 40000, web, 80), 0, ""},
		{"the node by a Service", to(plain(tcp, own, 40000, vip, 8000), web, 80), 0, ""},
		{"a jailed pod to its node", plain(tcp, jail, 40000, own, 10250), Egress,
			"tcp 172.30.0.1:10250 > 10.0.0.2:40000"},
		{"a jailed pod to the DNS of its node", plain(udp, jail, 40000, own, 53), 0, ""},
		{"a jailed pod out, masqueraded", behind(plain(tcp, jail, 40000, stranger, 443), own, 40000), Egress, ""},
		{"a jailed pod to a pod that would let it in by port", plain(udp, jail, 40000, web, 53), Ingress,
			"udp 10.0.0.1:53 > 10.0.0.2:40000"},
		{"a pod to itself by its Service", behind(to(plain(tcp, web, 40000, vip, 80), web, 8080), own, 40000), 0, ""},
		{"what a pod that only receives begins", plain(tcp, web, 40000, stranger, 443), 0, ""},
		{"an open pod", plain(tcp, stranger, 40000, open, 80), 0, ""},
		{"others", plain(tcp, stranger, 40000, peer, 80), 0, ""},
		{"ping", plain(1, stranger, 0, web, 0), Ingress, ""},
		{"a tunnel", plain(47, stranger, 0, web, 0), Ingress, ""},
	}
	j := NewJudge(sampleProgram(), []netip.Addr{own}, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, denied := j.Judge(&tt.entry)
			block := ""
			if !c.Revival.IsZero() {
				block = c.Revival.String()
			}
			if denied != (tt.reason != 0) || c.Reason != tt.reason || block != tt.block {
				t.Errorf("cut %t for %q, revival %q; want %q, %q", denied, c.Reason, block, tt.reason, tt.block)
			}
			if denied && (c.Entry != tt.entry || c.Pod == "" || c.Chain == "") {
				t.Errorf("the cut does not say what: %+v", c)
			}
		})
	}
}

func TestAPickedUpEntryIsJudgedTheRightWayRound(t *testing.T) {
	const tcp = inet.TCP
	tests := []struct {
		name  string
		entry inet.Connection
		want  string // the revival; empty: goes on
	}{
		{"as it stands, by a stranger", plain(tcp, stranger, 40000, web, 80), "tcp 10.0.0.1:80 > 10.0.1.2:40000"},
		{"as it stands, by the peer", plain(tcp, peer, 40000, web, 80), ""},
		{"turned round, by a stranger", plain(tcp, web, 80, stranger, 40000), "tcp 10.0.0.1:80 > 10.0.1.2:40000"},
		{"turned round, by the peer", plain(tcp, web, 80, peer, 40000), ""},
		{"begun by the pod that only receives", plain(tcp, web, 40000, stranger, 443), ""},
		{"begun by it, turned round", plain(tcp, stranger, 443, web, 40000), ""},
		{"no port tells, turned round it is denied", plain(tcp, web, 40000, stranger, 50000),
			"tcp 10.0.0.1:40000 > 10.0.1.2:50000"},
		{"no port tells, as it stands it is denied", plain(tcp, stranger, 50000, web, 40000),
			"tcp 10.0.0.1:40000 > 10.0.1.2:50000"},
		{"both ways denied", plain(tcp, jail, 40000, web, 80), "tcp 10.0.0.1:80 > 10.0.0.2:40000"},
		{"the node, turned round", plain(tcp, web, 80, own, 40000), ""},
	}
	j := NewJudge(sampleProgram(), []netip.Addr{own}, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := pickedUp(tt.entry)
			c, denied := j.Judge(&e)
			got := ""
			if denied {
				got = c.Revival.String()
			}
			if got != tt.want {
				t.Errorf("revival %q, want %q; cut %+v", got, tt.want, c)
			}
			if _, stays := j.Denied(c.Revival.Flow()); denied && !stays {
				t.Errorf("what revives %s is said to be allowed again", c.Revival)
			}
		})
	}
}

func TestConnectionsOfAReusedAddressGoWhateverThePolicySays(t *testing.T) {
	gone := addr("10.0.0.9")
	tests := []struct {
		name  string
		entry inet.Connection
		want  bool
	}{
		{"what the new pod would be allowed", plain(inet.TCP, peer, 40000, web, 80), true},
		{"what the former pod began", plain(inet.TCP, web, 40000, stranger, 443), true},
		{"by a Service", to(plain(inet.UDP, peer, 40000, vip, 80), web, 80), true},
		{"masqueraded", behind(plain(inet.UDP, web, 40000, stranger, 80), own, 40000), true},
		{"what the node began", plain(inet.TCP, own, 40000, web, 80), false},
		{"with the node, begun by the former pod", plain(inet.TCP, web, 40000, own, 80), true},
		{"with an address that no pod has now", plain(inet.TCP, stranger, 40000, gone, 80), true},
		{"of another pod", plain(inet.TCP, stranger, 40000, open, 80), false},
	}
	j := NewJudge(sampleProgram(), []netip.Addr{own}, []netip.Addr{web, gone})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, cut := j.Judge(&tt.entry)
			if cut != tt.want || cut && (c.Reason != Reused || !c.Revival.IsZero()) {
				t.Errorf("cut %t %+v, want %t for the reuse only", cut, c, tt.want)
			}
		})
	}
}

func TestWhatMayHaveBecomeWorse(t *testing.T) {
	list := func(a ...netip.Addr) []netip.Addr { return a }
	tests := []struct {
		name   string
		change func(*program.Program)
		want   Change
	}{
		{"nothing", func(*program.Program) {}, Change{}},
		{"a set gets a member", func(p *program.Program) {
			p.Sets[0].Elements = p.Sets[0].Elements.With(inet.Element{Addr: stranger})
		}, Change{}},
		{"a set loses a member", func(p *program.Program) { p.Sets[0].Elements = inet.Elements{} },
			Change{Shrunk: list(web)}},
		{"a set is gone", func(p *program.Program) { p.Sets = nil }, Change{Shrunk: list(web)}},
		{"a pod gets another chain", func(p *program.Program) { p.Pods[0].Ingress = "ingress4-x" },
			Change{Denied: list(web)}},
		{"an open pod is isolated", func(p *program.Program) { p.Pods[2].Egress = "egress4-jail" },
			Change{Denied: list(open)}},
		{"a pod is not isolated any more", func(p *program.Program) { p.Pods[0].Ingress = "" }, Change{}},
		{"other rules under the same name", func(p *program.Program) {
			p.Chains[0] = &program.Chain{Name: "egress4-jail", Direction: program.Egress}
		}, Change{Denied: list(jail)}},
		{"a chain is gone", func(p *program.Program) { p.Chains = p.Chains[1:] }, Change{Denied: list(jail)}},
		{"a pod is gone", func(p *program.Program) { p.Pods = p.Pods[1:] }, Change{Left: list(web)}},
		{"the last pod is gone", func(p *program.Program) { p.Pods = p.Pods[:3] }, Change{Left: list(web6)}},
		{"a pod came", func(p *program.Program) { p.Pods = append(p.Pods, program.Pod{Addr: addr("fd00::2")}) },
			Change{Added: list(addr("fd00::2"))}},
		{"a later pod of the same name has the address", func(p *program.Program) { p.Pods[0].ID = "2" },
			Change{Moved: list(web)}},
		{"an address has another pod", func(p *program.Program) { p.Pods[2].Name = "shop/next" },
			Change{Moved: list(open)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := sampleProgram()
			tt.change(now)
			got := Compare(sampleProgram(), now)
			if !equal(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got.None() != (len(got.Touched()) == 0) {
				t.Errorf("none %t, touched %v", got.None(), got.Touched())
			}
		})
	}
}
