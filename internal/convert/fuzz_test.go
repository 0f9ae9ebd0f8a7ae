// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
)

// FuzzPolicy checks that no spec makes the conversion panic, and that a rule
// gets no peer and no port that its text does not have.
func FuzzPolicy(f *testing.F) {
	f.Add(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}], ports: [{port: http}]}]}`)
	f.Add(`{podSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}, egress: [{to: [{}], ports: [{endPort: 1}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var np networkingv1.NetworkPolicy
		if yaml.Unmarshal([]byte(text), &np.Spec) != nil {
			return
		}
		p, _ := Policy(&np)
		if !p.Subject.Valid() || !p.IsolatesIngress && !p.IsolatesEgress {
			t.Fatalf("%s isolates nothing", text)
		}
		checkRules(t, p.Ingress, ingressRules(np.Spec.Ingress))
		checkRules(t, p.Egress, egressRules(np.Spec.Egress))
	})
}

func checkRules(t *testing.T, got []cluster.Rule, raw []rule) {
	t.Helper()
	for _, r := range got {
		from := raw[r.Index]
		if r.Peers.Any != (len(from.peers) == 0) || len(r.Peers.List) > len(from.peers) {
			t.Errorf("rule %d: %d peers became %+v", r.Index, len(from.peers), r.Peers)
		}
		if r.Ports.Any != (len(from.ports) == 0) || len(r.Ports.List) > len(from.ports) {
			t.Errorf("rule %d: %d ports became %+v", r.Index, len(from.ports), r.Ports)
		}
	}
}
