// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// TestUnknownFieldsCloseTheSmallestPart: each spec would allow more than its
// writer wanted if the unknown field were left out.
func TestUnknownFieldsCloseTheSmallestPart(t *testing.T) {
	for _, c := range []struct{ name, spec, want string }{
		{"a misspelt from closes its rule only", `{ingress: [{form: [{podSelector: {}}]}, {ports: [{port: 80}]}]}`,
			"ingress 0:peers=0 1:any,ports=1; spec.ingress[0].form: unknown field: this rule matches nothing (f:4)"},
		{"a misspelt ports closes its rule", `{egress: [{to: [{podSelector: {}}], port: [{port: 80}]}]}`,
			"ingress egress 0:peers=0; spec.egress[0].port: unknown field: this rule matches nothing (f:4)"},
		{"a misspelt endPort closes its port entry only", `{ingress: [{ports: [{port: 80, endport: 81}, {port: 90}]}]}`,
			"ingress 0:any,ports=1; spec.ingress[0].ports[0].endport: unknown field: this port entry matches nothing (f:4)"},
		{"a misspelt except closes its peer only", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, excpt: [10.1.0.0/16]}}, {podSelector: {}}]}]}`,
			"ingress 0:peers=1; spec.ingress[0].from[0].ipBlock.excpt: unknown field: this peer matches nothing (f:4)"},
		{"a misspelt matchLabels closes its peer", `{egress: [{to: [{podSelector: {matchLabel: {a: b}}}]}]}`,
			"ingress egress 0:peers=0; spec.egress[0].to[0].podSelector.matchLabel: unknown field: this peer matches nothing (f:4)"},
		{"a field in the wrong case is unknown", `{ingress: [{From: [{podSelector: {}}]}]}`,
			"ingress 0:peers=0; spec.ingress[0].From: unknown field: this rule matches nothing (f:4)"},
		{"a misspelt subject isolates every pod and allows nothing",
			`{podSelector: {matchLabel: {a: b}}, ingress: [{}]}`,
			"ingress; spec.podSelector.matchLabel: unknown field: the policy isolates every pod of its namespace and allows nothing (f:4)"},
		{"a misspelt podSelector allows nothing", `{podselector: {matchLabels: {a: b}}, ingress: [{}], policyTypes: [Ingress]}`,
			"ingress; spec.podselector: unknown field: the policy allows nothing (f:4)"},
		{"a misspelt policyTypes isolates both directions", `{policyType: [Egress], ingress: [{}]}`,
			"ingress egress; spec.policyType: unknown field: the policy isolates both directions and allows nothing (f:4)"},
		{"several unknown fields at several depths", `{ingres: [], ingress: [{form: [], from: [{x: 1}, {podSelector: {}, w: 1}]}]}`,
			"ingress egress; spec.ingres: unknown field: the policy isolates both directions and allows nothing (f:4)" +
				"; spec.ingress[0].form: unknown field: the policy allows nothing (f:4)" +
				"; spec.ingress[0].from[0].x: unknown field: the policy allows nothing (f:4)" +
				"; spec.ingress[0].from[1].w: unknown field: the policy allows nothing (f:4)"},
		{"a closed rule with unknown fields inside", `{ingress: [{form: [], from: [{x: 1}, {podSelector: {}, w: 1}], ports: [{z: 1}]}]}`,
			"ingress 0:peers=0,ports=0; spec.ingress[0].form: unknown field: this rule matches nothing (f:4)" +
				"; spec.ingress[0].from[0].x: unknown field: this peer matches nothing (f:4)" +
				"; spec.ingress[0].from[1].w: unknown field: this rule matches nothing (f:4)" +
				"; spec.ingress[0].ports[0].z: unknown field: this port entry matches nothing (f:4)"},
		{"conversion's own findings get a line too", "\n  ingress:\n  - from:\n    - {}\n",
			"ingress 0:peers=0; spec.ingress[0].from[0]: the peer is empty: this peer matches nothing (f:7)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: " + c.spec + "\n"
			r, err := Parse("f", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got := strictSummary(r); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func strictSummary(r *Result) string {
	p := r.Policies[0]
	var words []string
	if p.IsolatesIngress {
		words = append(words, "ingress")
	}
	for _, e := range p.Ingress {
		words = append(words, ruleSummary(e.Index, e.Peers.Any, len(e.Peers.List), e.Ports.Any, len(e.Ports.List)))
	}
	if p.IsolatesEgress {
		words = append(words, "egress")
	}
	for _, e := range p.Egress {
		words = append(words, ruleSummary(e.Index, e.Peers.Any, len(e.Peers.List), e.Ports.Any, len(e.Ports.List)))
	}
	parts := []string{strings.Join(words, " ")}
	for _, d := range r.Diagnostics {
		parts = append(parts, d.Field+": "+d.Message)
	}
	return strings.Join(parts, "; ")
}

func ruleSummary(index int, anyPeer bool, peers int, anyPort bool, ports int) string {
	s := fmt.Sprintf("%d:peers=%d", index, peers)
	if anyPeer {
		s = fmt.Sprintf("%d:any", index)
	}
	if !anyPort {
		s += fmt.Sprintf(",ports=%d", ports)
	}
	return s
}
