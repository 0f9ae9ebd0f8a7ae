// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
)

// policyHead begins a policy; the fuzzer writes the spec.
const policyHead = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: "

// FuzzUnknownFields checks that a field which the API does not have never opens:
// a rule, peer or port that has one matches nothing. Which fields are unknown
// is asked of the plain JSON, by lists of names written here.
func FuzzUnknownFields(f *testing.F) {
	f.Add(`{ingress: [{form: [], from: [{podSelector: {}}], ports: [{port: 80}]}, {}]}`)
	f.Add(`{ingress: [{from: [{podselector: {}}, {ipBlock: {cidr: 10.0.0.0/8, exept: [10.0.0.0/9]}}], ports: [{prot: 80}, {port: 81}]}]}`)
	f.Add(`{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabel: {a: b}}}]}], ports: []}`)
	f.Add(`{podSelector: {matchLabels: {a: b}, matchExpression: []}, ingress: [{}]}`)
	f.Fuzz(func(t *testing.T, spec string) {
		raw := map[string]any{}
		converted, err := yaml.YAMLToJSONStrict([]byte(spec))
		if err != nil || json.Unmarshal(converted, &raw) != nil {
			return
		}
		r, err := Parse("f", append([]byte(policyHead), converted...))
		if err != nil || len(r.Policies) != 1 {
			return
		}
		p := r.Policies[0]
		checkKnown(t, spec, raw["ingress"], "from", p.Ingress)
		checkKnown(t, spec, raw["egress"], "to", p.Egress)
		subject := hasOnly(raw["podSelector"], "matchLabels", "matchExpressions")
		if !hasOnly(raw, "podSelector", "policyTypes", "ingress", "egress") || !subject {
			if len(p.Ingress)+len(p.Egress) > 0 {
				t.Errorf("%s has an unknown field and allows %+v, %+v", spec, p.Ingress, p.Egress)
			}
		}
		if !subject && !p.Subject.MatchesAll() {
			t.Errorf("%s selects %s", spec, p.Subject)
		}
	})
}

// hasOnly reports whether a value is no object, or one with no other fields.
func hasOnly(v any, names ...string) bool {
	m, _ := v.(map[string]any)
	for name := range m {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// checkKnown compares rules with the JSON that they come from.
func checkKnown(t *testing.T, spec string, raw any, peers string, rules []cluster.Rule) {
	t.Helper()
	list, _ := raw.([]any)
	for _, r := range rules {
		from, _ := list[r.Index].(map[string]any)
		closed := !r.Peers.Any && len(r.Peers.List) == 0 || !r.Ports.Any && len(r.Ports.List) == 0
		if !hasOnly(from, peers, "ports") && !closed {
			t.Errorf("%s: rule %d has an unknown field and allows %+v", spec, r.Index, r)
		}
		if n := wellKnown(from[peers], knownPeer); !r.Peers.Any && len(r.Peers.List) > n {
			t.Errorf("%s: rule %d has %d peers without unknown fields and allows %+v", spec, r.Index, n, r.Peers)
		}
		if n := wellKnown(from["ports"], knownPort); !r.Ports.Any && len(r.Ports.List) > n {
			t.Errorf("%s: rule %d has %d ports without unknown fields and allows %+v", spec, r.Index, n, r.Ports)
		}
		if items, _ := from[peers].([]any); r.Peers.Any && len(items) > 0 {
			t.Errorf("%s: rule %d lists peers and allows all", spec, r.Index)
		}
		if items, _ := from["ports"].([]any); r.Ports.Any && len(items) > 0 {
			t.Errorf("%s: rule %d lists ports and allows all", spec, r.Index)
		}
	}
}

func wellKnown(v any, is func(any) bool) int {
	items, _ := v.([]any)
	n := 0
	for _, item := range items {
		if is(item) {
			n++
		}
	}
	return n
}

func knownPeer(v any) bool {
	m, _ := v.(map[string]any)
	return hasOnly(m, "podSelector", "namespaceSelector", "ipBlock") &&
		hasOnly(m["podSelector"], "matchLabels", "matchExpressions") &&
		hasOnly(m["namespaceSelector"], "matchLabels", "matchExpressions") &&
		hasOnly(m["ipBlock"], "cidr", "except")
}

func knownPort(v any) bool { return hasOnly(v, "protocol", "port", "endPort") }
