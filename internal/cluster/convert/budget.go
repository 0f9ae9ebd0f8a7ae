// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// maxFindings bounds the diagnostics of one object.
const maxFindings = 20

// affordable reports whether the policy may be within its budget. It only counts, and parses
// nothing.
func (r *reader) affordable(s *networkingv1.NetworkPolicySpec) bool {
	size := 0
	for _, rule := range ingressRules(s.Ingress) {
		size += rule.size()
	}
	for _, rule := range egressRules(s.Egress) {
		size += rule.size()
	}
	if size > cluster.MaxPolicyEntries {
		r.tooLarge(size)
		return false
	}
	return true
}

func (r *reader) tooLarge(size int) {
	r.fail("spec", fmt.Sprintf("the policy has %d entries (ports, peers, exceptions and values of selectors), more "+
		"than %d: it allows nothing, its pods stay isolated", size, cluster.MaxPolicyEntries),
		"write larger CIDR blocks and port ranges, or fewer selectors; docs/limits.md says how entries are counted")
}

// subject returns the selector. One that is too large to be kept is replaced by the selector of all
// pods, and ok is false: like a selector that cannot be read, it must not open pods that it does
// not select.
func (r *reader) subject(s cluster.Selector) (subject cluster.Selector, ok bool) {
	if s.Size() <= cluster.MaxSubject {
		return s, true
	}
	r.fail("spec.podSelector", fmt.Sprintf("the selector has a size of %d, more than %d: the policy isolates every "+
		"pod of its namespace and allows nothing",
		s.Size(), cluster.MaxSubject), "select the pods by fewer labels; docs/limits.md says how they are counted")
	return cluster.Everything(), false
}

// size returns the least number of entries that the rule can have.
func (r rule) size() int {
	n := 1 + len(r.ports)
	for _, p := range r.peers {
		if p.IPBlock != nil {
			n += 1 + len(p.IPBlock.Except)
			continue
		}
		n += leastSize(p.PodSelector)
		if p.NamespaceSelector != nil {
			n += leastSize(p.NamespaceSelector)
		}
	}
	return n
}

// leastSize returns the least size that the selector can have (cluster.Selector.Size): to parse thousands of
// them takes a hundred times as long as to count them.
func leastSize(s *metav1.LabelSelector) int {
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return 1
	}
	n := 4 + len(s.MatchLabels)
	for _, e := range s.MatchExpressions {
		n += len(e.Values)
	}
	return n
}

// findings returns the findings; only the first ones if there are many.
func (r *reader) findings() []cluster.Diagnostic {
	more := len(r.found) - maxFindings
	if more <= 0 {
		return r.found
	}
	last := r.found[maxFindings]
	last.Field, last.Message = "spec", fmt.Sprintf("and %d more findings", more)
	if r.kind == KindSlice {
		last.Field = "endpoints"
	}
	last.Cure = "correct those that are listed, then look again"
	return append(r.found[:maxFindings:maxFindings], last)
}
