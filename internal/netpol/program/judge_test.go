// SPDX-License-Identifier: Apache-2.0

package program

import (
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

// Two pods share a chain with a named port, and declare different numbers: the answer
// about one is not the answer about the other.
func TestAnAnswerAboutANamedPortIsAboutOnePod(t *testing.T) {
	one, two := addr("10.0.0.1"), addr("10.0.0.2")
	p := &Program{
		Pods: []Pod{{Addr: one, Ingress: "in"}, {Addr: two, Ingress: "in"}},
		Chains: []*Chain{{Name: "in", Direction: Ingress, Family: inet.IPv4,
			Rules: []Rule{{Protocol: inet.TCP, DestSet: "s"}}}},
		Sets: []*Set{{Name: "s", Kind: inet.AddrPorts, Family: inet.IPv4,
			Elements: elements(inet.Element{Addr: one, Port: 80}, inet.Element{Addr: two, Port: 81})}},
	}
	j := NewJudge(p)
	for _, f := range []Flow{{Dst: one, DstPort: 80}, {Dst: two, DstPort: 80}, {Dst: two, DstPort: 81},
		{Dst: one, DstPort: 81}} {
		f.Protocol, f.Src = inet.TCP, addr("10.0.0.9")
		if got, want := j.Allows(Ingress, f), Eval(p, f) == Accept; got != want {
			t.Errorf("%s:%d: allowed %t, want %t", f.Dst, f.DstPort, got, want)
		}
	}
}

// A node with the address of a pod is the node, and a chain that does not exist denies.
func TestAJudgeKnowsTheNodeAndIsClosed(t *testing.T) {
	p := &Program{Pods: []Pod{{Addr: addr("10.0.0.1"), Ingress: "gone", Egress: "gone"}}}
	j := NewJudge(p)
	for name, tt := range map[string]struct {
		f               Flow
		egress, ingress bool
	}{
		"to a pod":      {Flow{Src: addr("10.0.0.9"), Dst: addr("10.0.0.1")}, true, false},
		"from a pod":    {Flow{Src: addr("10.0.0.1"), Dst: addr("10.0.0.9")}, false, true},
		"to the node":   {Flow{Src: addr("10.0.0.9"), Dst: addr("10.0.0.1"), ToNode: true}, true, true},
		"from the node": {Flow{Src: addr("10.0.0.1"), Dst: addr("10.0.0.1"), FromNode: true}, true, true},
		"to itself":     {Flow{Src: addr("10.0.0.1"), Dst: addr("10.0.0.1")}, true, true},
	} {
		if e, i := j.Allows(Egress, tt.f), j.Allows(Ingress, tt.f); e != tt.egress || i != tt.ingress {
			t.Errorf("%s: egress %t, ingress %t", name, e, i)
		}
	}
}
