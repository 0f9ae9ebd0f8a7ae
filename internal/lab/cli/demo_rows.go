// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"net/netip"

	"github.com/podwall/podwall/internal/lab/packet"
)

// example is one of the five policies of the reference setup.
type example struct {
	Number int
	Title  string
	File   string // in package examples
	Shown  port   // whose matrix is printed
}

func seedExamples() []example {
	tcp := func(n uint16) port { return port{packet.TCP, n} }
	return []example{
		{1, "pods of nsa reach each other, no others reach them", "seed/1-same-namespace.yaml", tcp(80)},
		{2, "the pods of nsa are reached by none", "seed/2-deny-ingress.yaml", tcp(80)},
		{3, "only namespaces labelled app=nsb reach nsa, on TCP 6379", "seed/3-from-namespace.yaml", tcp(6379)},
		{4, "nsa reaches 14.215.0.0/16 on TCP 5978 and nothing else", "seed/4-egress-to-cidr.yaml", tcp(5978)},
		{5, "only 14.215.0.0/16 reaches default, on TCP 80", "seed/5-ingress-from-cidr.yaml", tcp(80)},
	}
}

// demoPorts are tried in every state of the demo.
func demoPorts() []port {
	return []port{{packet.TCP, 80}, {packet.TCP, 6379}, {packet.TCP, 5978}, {packet.TCP, 8080}, {packet.UDP, 53}}
}

// cidr is what examples 4 and 5 name.
func inCIDR(e end, v6 bool) bool {
	a, _ := e.address(v6)
	return !v6 && netip.MustParsePrefix("14.215.0.0/16").Contains(a)
}

// row is a row of the functional table of the reference setup. Its expectations are written by
// hand and know neither the policy objects nor any code that reads them.
type row struct {
	Number int
	Title  string
	Seed   string // what is reported for kube-router
	// claims say, by example number, which flows the row is about and what must
	// become of them.
	claims map[int]claim
}

type claim func(src, dst end, p port, v6 bool) (asked, want bool)

// seedRows returns the six rows of the functional table and, as row 0, the fifth
// example, which has no row of its own there.
func seedRows() []row {
	rows := []row{
		{1, "pods of one namespace reach each other, other namespaces do not", "Pass", map[int]claim{1: sameNamespace}},
		{2, "no pod reaches them, of the same namespace neither", "Pass", map[int]claim{2: nobody}},
		{3, "isolated from other namespaces, but B reaches A", "Pass", map[int]claim{3: onPort(fromB, port{packet.TCP,
			6379})}},
		{4, "a namespace reaches one CIDR outside, all else outside is blocked", "Pass", map[int]claim{4: outside}},
		{5, "isolated, but B reaches the right pods of A on the right port", "Pass", map[int]claim{3: fromB}},
	}
	return append(rows,
		row{6, "the same, where both pods are on one node", "Fail", map[int]claim{
			1: oneNode(sameNamespace), 2: oneNode(nobody), 3: oneNode(fromB), 4: oneNode(leavesNSA),
			5: oneNode(fromCIDR),
		}},
		row{0, "not in the table: one CIDR outside reaches a namespace (example 5)", "", map[int]claim{5: fromCIDR}},
	)
}

func sameNamespace(src, dst end, _ port, _ bool) (asked, want bool) {
	return dst.namespace() == "nsa", src.namespace() == "nsa"
}

func nobody(_, dst end, _ port, _ bool) (asked, want bool) {
	return dst.namespace() == "nsa", false
}

func fromB(src, dst end, p port, _ bool) (asked, want bool) {
	return dst.namespace() == "nsa", src.namespace() == "nsb" && p == port{packet.TCP, 6379}
}

func outside(src, dst end, p port, v6 bool) (asked, want bool) {
	_, want = leavesNSA(src, dst, p, v6)
	return src.namespace() == "nsa" && dst.pod == nil, want
}

func leavesNSA(src, dst end, p port, v6 bool) (asked, want bool) {
	return src.namespace() == "nsa", inCIDR(dst, v6) && p == port{packet.TCP, 5978}
}

func fromCIDR(src, dst end, p port, v6 bool) (asked, want bool) {
	return dst.namespace() == "default", inCIDR(src, v6) && p == port{packet.TCP, 80}
}

// onPort narrows a claim to one port.
func onPort(c claim, only port) claim {
	return func(src, dst end, p port, v6 bool) (bool, bool) {
		asked, want := c(src, dst, p, v6)
		return asked && p == only, want
	}
}

// oneNode narrows a claim to pairs of pods of one node.
func oneNode(c claim) claim {
	return func(src, dst end, p port, v6 bool) (bool, bool) {
		asked, want := c(src, dst, p, v6)
		return asked && src.pod != nil && dst.pod != nil && src.pod.Node == dst.pod.Node, want
	}
}

// result is what was measured for a row on one wiring.
type result struct {
	Wiring   string   `json:"wiring"`
	Result   string   `json:"result"` // Pass or Fail
	Packets  int      `json:"packets"`
	Failures []string `json:"failures,omitempty"`
}

// judge checks the flows that a row is about: open before the policy, and as
// claimed under it.
func (r row) judge(wiring string, shown []exampleView) result {
	res := result{Wiring: wiring, Result: "Pass"}
	for _, e := range shown {
		c := r.claims[e.Number]
		if c == nil {
			continue
		}
		for _, f := range e.after.flows {
			asked, want := c(e.after.ends[f.src], e.after.ends[f.dst], e.after.ports[f.port], f.v6)
			if !asked {
				continue
			}
			res.Packets += e.before.answers[f].Packets + e.after.answers[f].Packets
			res.note(e, "before it ", e.before.wrong(f, true))
			res.note(e, "", e.after.wrong(f, want))
		}
	}
	if res.Packets == 0 {
		res.Result, res.Failures = "Fail", append(res.Failures, "nothing was measured")
	}
	return res
}

func (r *result) note(e exampleView, when, failure string) {
	if failure == "" {
		return
	}
	r.Result = "Fail"
	r.Failures = append(r.Failures, exampleName(e.example)+": "+when+failure)
}
