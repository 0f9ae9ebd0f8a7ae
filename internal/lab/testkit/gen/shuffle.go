// SPDX-License-Identifier: Apache-2.0

package gen

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"
)

// Shuffle returns the policy with the items of all lists inside rules in
// another order: it means the same.
func Shuffle(t *rapid.T, p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	p = p.DeepCopy()
	p.Spec.PolicyTypes = shuffled(t, p.Spec.PolicyTypes)
	for i := range p.Spec.Ingress {
		r := &p.Spec.Ingress[i]
		r.Ports, r.From = shuffled(t, r.Ports), shuffled(t, r.From)
		shuffleInside(t, r.From)
	}
	for i := range p.Spec.Egress {
		r := &p.Spec.Egress[i]
		r.Ports, r.To = shuffled(t, r.Ports), shuffled(t, r.To)
		shuffleInside(t, r.To)
	}
	shuffleExpressions(t, p)
	return p
}

func shuffleInside(t *rapid.T, list []networkingv1.NetworkPolicyPeer) {
	for _, p := range list {
		if p.IPBlock != nil {
			p.IPBlock.Except = shuffled(t, p.IPBlock.Except)
		}
		if p.PodSelector != nil {
			p.PodSelector.MatchExpressions = shuffled(t, p.PodSelector.MatchExpressions)
		}
		if p.NamespaceSelector != nil {
			p.NamespaceSelector.MatchExpressions = shuffled(t, p.NamespaceSelector.MatchExpressions)
		}
	}
}

func shuffleExpressions(t *rapid.T, p *networkingv1.NetworkPolicy) {
	p.Spec.PodSelector.MatchExpressions = shuffled(t, p.Spec.PodSelector.MatchExpressions)
}

func shuffled[T any](t *rapid.T, list []T) []T {
	if len(list) < 2 {
		return list // also keeps absent and empty apart
	}
	return rapid.Permutation(slices.Clone(list)).Draw(t, "order")
}
