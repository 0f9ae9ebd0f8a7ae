// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// walks are the base chains at which an error can be met, by the kind of chain.
var walks = map[bool][]string{false: {"guard", "untracked-input"}, true: {"postrouting-filter", "input-filter"}}

func TestErrorsAreJudgedByWhoSendsThem(t *testing.T) {
	jailed, open, free, out := at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3"), at("198.51.100.7")
	p := &program.Program{
		Pods:   []program.Pod{{Addr: jailed, Egress: "out"}, {Addr: open}, {Addr: free}},
		Chains: []*program.Chain{{Name: "out", Direction: program.Egress, Family: inet.IPv4}},
	}
	tests := []struct {
		name                string
		in                  string
		src, began, answers netip.Addr
		want                nft.VerdictKind
	}{
		{"of others' connections", "veth1", jailed, open, out, nft.Drop},
		{"of its own, which it began", "veth1", jailed, jailed, out, nft.Accept},
		{"of its own, which it answers", "veth1", jailed, out, jailed, nft.Accept},
		{"with the address of an end", "veth1", open, open, out, nft.Drop},
		{"with an address outside", "veth1", out, open, out, nft.Drop},
		{"of an open pod", "veth2", open, free, out, nft.Accept},
		{"passed on by an open pod", "veth2", at("203.0.113.9"), free, out, nft.Accept},
		{"of a pod that nobody knows", "veth9", at("10.0.0.9"), free, out, nft.Drop},
		{"of a router", uplink, at("203.0.113.9"), open, out, nft.Accept},
	}
	for filter, chains := range walks {
		n := program.Node{FilterHook: filter, Open: []string{uplink}, Egress: []string{"veth1"},
			Attached: []program.Attachment{{Link: "veth1", Addr: jailed}, {Link: "veth2", Addr: open}, {Link: "veth3", Addr: free}}}
		table := ruleset.Render(p, n)
		for _, tt := range tests {
			for i, name := range chains {
				w := walker{table: table, flow: program.Flow{Protocol: 1, Src: tt.src, Dst: out}, state: nft.CtRelated, in: tt.in,
					out: []string{uplink, ""}[i], began: tt.began, answers: tt.answers}
				if got := w.hook(table.Chain(name)); got != tt.want {
					t.Errorf("an error %s at %s: verdict %d, want %d", tt.name, name, got, tt.want)
				}
			}
		}
	}
}

// What is related and no error is judged as a first packet.
func TestExpectedConnectionsAreNoErrors(t *testing.T) {
	a, b := at("10.0.0.1"), at("10.0.0.2")
	p := &program.Program{Pods: []program.Pod{{Addr: a, Egress: "out"}, {Addr: b}},
		Chains: []*program.Chain{{Name: "out", Direction: program.Egress, Family: inet.IPv4}}}
	table := ruleset.Render(p, program.Node{})
	f := program.Flow{Protocol: inet.TCP, Src: a, Dst: b, DstPort: 80}
	if got := (walker{table: table, flow: f, state: nft.CtRelated, in: uplink, out: uplink}).hook(table.Chain("guard")); got != nft.Accept {
		t.Errorf("the guard: verdict %d, want accept", got)
	}
	table = ruleset.Render(p, program.Node{FilterHook: true})
	w := walker{table: table, flow: f, state: nft.CtRelated, in: uplink, out: uplink}
	if got := w.hook(table.Chain("postrouting-filter")); got != nft.Drop {
		t.Errorf("filter chains: verdict %d, want drop", got)
	}
}

// A service proxy, or a firewall of the node, refuses what a pod opens in the name of the one whom the pod called.
// That is no spoofed packet, and no new connection to the pod.
func TestTheNodesRefusalsReachPods(t *testing.T) {
	pod, service := at("10.0.0.1"), at("10.96.0.1")
	p := &program.Program{Pods: []program.Pod{{Addr: pod, Ingress: "in"}},
		Chains: []*program.Chain{{Name: "in", Direction: program.Ingress, Family: inet.IPv4}}}
	tests := []struct {
		name  string
		in    string
		state nft.CtState
		reset bool
		want  nft.VerdictKind
	}{
		{"a refusal", "", nft.CtRelated, true, nft.Accept},
		{"a refusal that a pod sent", "veth2", nft.CtRelated, true, nft.Drop},
		{"a reset of no connection", "", nft.CtNew, true, nft.Drop},
		{"an expected connection over a bridge", "", nft.CtRelated, false, nft.Drop},
	}
	for filter, chain := range map[bool]string{false: "postrouting", true: "postrouting-filter"} {
		table := ruleset.Render(p, program.Node{FilterHook: filter, Open: []string{uplink}, Ingress: []string{"veth1"},
			Attached: []program.Attachment{{Link: "veth1", Addr: pod}}})
		for _, tt := range tests {
			w := walker{table: table, state: tt.state, reset: tt.reset, in: tt.in, out: "veth1",
				flow: program.Flow{Protocol: inet.TCP, Src: service, Dst: pod, DstPort: 40000}}
			if got := w.hook(table.Chain(chain)); got != tt.want {
				t.Errorf("%s: %s: verdict %d, want %d", chain, tt.name, got, tt.want)
			}
		}
	}
}

func TestWhereALinkLocalPeerIs(t *testing.T) {
	pod, local := at("10.0.0.1"), at("169.254.7.7")
	block := program.Block{CIDR: netip.MustParsePrefix("169.254.0.0/16")}
	p := &program.Program{
		Pods: []program.Pod{{Addr: pod, Ingress: "in", Egress: "out"}, {Addr: at("10.0.0.2")}},
		Chains: []*program.Chain{
			{Name: "in", Direction: program.Ingress, Family: inet.IPv4, Rules: []program.Rule{{Block: block, Place: program.Elsewhere}}},
			{Name: "out", Direction: program.Egress, Family: inet.IPv4,
				Rules: []program.Rule{{Block: block, Place: program.Elsewhere}, {Block: block, Place: program.OnNode}}}},
	}
	tests := []struct {
		name    string
		hook    string
		in, out string
		flow    program.Flow
		want    nft.VerdictKind
	}{
		{"from the uplink", "postrouting", uplink, "veth1", program.Flow{Src: local, Dst: pod}, nft.Accept},
		{"from another pod's interface", "postrouting", "veth2", "veth1", program.Flow{Src: local, Dst: pod}, nft.Drop},
		{"from the same bridge", "postrouting", "", "veth1", program.Flow{Src: local, Dst: pod}, nft.Drop},
		{"by the uplink", "postrouting", "veth1", uplink, program.Flow{Src: pod, Dst: local}, nft.Accept},
		{"to another pod's interface", "postrouting", "veth1", "veth2", program.Flow{Src: pod, Dst: local}, nft.Drop},
		{"to the node", "input", "veth1", "", program.Flow{Src: pod, Dst: local, ToNode: true}, nft.Accept},
		{"to a pod that took an address of the node", "postrouting", "", "veth2", program.Flow{Src: pod, Dst: local, ToNode: true}, nft.Drop},
		{"a pod's own, away from the node", "postrouting", "veth2", uplink, program.Flow{Src: local, Dst: at("198.51.100.7")}, nft.Drop},
		{"a pod's own, to the node", "input", "veth2", "", program.Flow{Src: local, Dst: at("192.168.0.1"), ToNode: true}, nft.Accept},
	}
	for _, closed := range []bool{true, false} {
		n := program.Node{OpenUnknown: !closed, Open: []string{uplink}, Ingress: []string{"veth1"}, Egress: []string{"veth1"},
			Attached: []program.Attachment{{Link: "veth1", Addr: pod}, {Link: "veth2", Addr: at("10.0.0.2")}}}
		table := ruleset.Render(p, n)
		for _, tt := range tests {
			tt.flow.Protocol = inet.UDP
			if got := (walker{table: table, flow: tt.flow, state: nft.CtNew, in: tt.in, out: tt.out}).hook(table.Chain(tt.hook)); got != tt.want {
				t.Errorf("closed %t, %s: verdict %d, want %d", closed, tt.name, got, tt.want)
			}
		}
		// On a bridge the base chains may stop these for other reasons, so the pod's chains are asked.
		taken := walker{table: table, flow: program.Flow{Protocol: inet.UDP, Src: pod, Dst: local, ToNode: true}, state: nft.CtNew, out: "veth1"}
		if got := taken.chain(table.Chain("out"), 0); got != nft.Drop {
			t.Errorf("closed %t, to a neighbour with an address of the node: verdict %d, want drop", closed, got)
		}
		same := walker{table: table, flow: program.Flow{Protocol: inet.UDP, Src: local, Dst: pod}, state: nft.CtNew, out: "veth1"}
		if got := same.chain(table.Chain("in"), 0); got != nft.Drop {
			t.Errorf("closed %t, from a neighbour: verdict %d, want drop", closed, got)
		}
	}
}

func at(text string) netip.Addr { return netip.MustParseAddr(text) }
