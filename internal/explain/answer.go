// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Explanation is the answer to a question about a flow.
type Explanation struct {
	Flow    Flow       `json:"-"`
	Src     netip.Addr `json:"source"`
	Dst     netip.Addr `json:"destination"`
	Allowed bool       `json:"allowed"`
	Egress  Side       `json:"egress"`
	Ingress Side       `json:"ingress"`
}

// Cause is what decided one side.
type Cause string

// The causes. The zero value denies.
const (
	// NoRule: the pod is isolated, and no rule allows the flow.
	NoRule Cause = ""
	// NoSubject: this end is not a pod that policies apply to.
	NoSubject Cause = "not a pod that policies apply to"
	// NotIsolated: no policy selects the pod for this direction.
	NotIsolated Cause = "not isolated"
	// Self: a pod always reaches itself.
	Self Cause = "a pod to itself"
	// OwnNode: a node always reaches its own pods.
	OwnNode Cause = "the pod's own node"
	// Contested: another pod claims the address too, so it is closed for both.
	Contested Cause = "another pod has the same address"
	// NotInForce: a rule allows the flow, and is not in force; see Side.Findings.
	NotInForce Cause = "a rule that allows it is not in force"
	// AllowedByRule: see Side.Rules.
	AllowedByRule Cause = "a rule allows it"
)

// Side is the decision of one direction: egress of the source or ingress of the
// destination.
type Side struct {
	Cause Cause `json:"cause,omitempty"`
	// Isolating are the policies that select the pod for this direction, by name.
	Isolating []cluster.Key `json:"isolating,omitempty"`
	// Others are the policies of the namespace and direction that do not select it.
	Others []Other `json:"others,omitempty"`
	// Rules are the rules of the API that allow the flow.
	Rules []RuleRef `json:"rules,omitempty"`
	// Nearest is the rule that came nearest, for a denied flow; nil if the policies
	// have no rules in this direction.
	Nearest *Miss `json:"nearest,omitempty"`
	// Change is one change of one object that would allow this side; empty if the side
	// allows the flow.
	Change string `json:"change,omitempty"`
	// Claimants are the pods with the address, if it is contested.
	Claimants []cluster.Key `json:"claimants,omitempty"`
	// Findings are about isolating policies, for a denied flow: what was not enforced
	// whole, and what Report was given about this direction.
	Findings []cluster.Diagnostic `json:"findings,omitempty"`
}

// Same reports whether two explanations give the same reasons: they may differ in
// addresses.
func (e *Explanation) Same(o *Explanation) bool {
	return e.Egress.Same(o.Egress) && e.Ingress.Same(o.Ingress)
}

// Same reports whether two sides have the same cause, rules and proposed change.
func (s Side) Same(o Side) bool {
	return s.Cause == o.Cause && s.Change == o.Change && slices.Equal(s.Rules, o.Rules) && s.nearest() == o.nearest()
}

func (s Side) nearest() RuleRef {
	if s.Nearest == nil {
		return RuleRef{}
	}
	return s.Nearest.RuleRef
}

// MarshalJSON adds whether this side lets the flow pass.
func (s Side) MarshalJSON() ([]byte, error) {
	type fields Side
	return json.Marshal(struct {
		Allowed bool `json:"allowed"`
		fields
	}{s.Allowed(), fields(s)})
}

// Allowed reports whether this side lets the flow pass.
func (s Side) Allowed() bool {
	return s.Cause != NoRule && s.Cause != Contested && s.Cause != NotInForce
}

func auditWords(p *cluster.Policy) string {
	if p.ByNamespace {
		return "which selects the pod, is in audit mode, as its namespace"
	}
	return "which selects the pod, is in audit mode"
}

// Other is a policy that does not isolate the pod, and why: it does not select it, or is in audit mode.
type Other struct {
	Policy cluster.Key `json:"policy"`
	Why    string      `json:"why"`
	// Audit is true for a policy that selects the pod and is in audit mode: it is not enforced.
	Audit bool `json:"audit,omitempty"`
}

// String returns the policy and why it does not isolate the pod.
func (o Other) String() string {
	if o.Audit {
		return fmt.Sprintf("not enforced: %s, %s", o.Policy, o.Why)
	}
	return fmt.Sprintf("not selected by %s: %s", o.Policy, o.Why)
}

// RuleRef names a rule of a policy.
type RuleRef struct {
	Policy cluster.Key `json:"policy"`
	// Path is the field of the rule, as in spec.ingress[0].
	Path string `json:"path"`
}

// Miss is a rule that does not allow the flow.
type Miss struct {
	RuleRef
	// PeerMatches and PortMatches say which half of the rule the flow meets.
	PeerMatches bool `json:"peerMatches"`
	PortMatches bool `json:"portMatches"`
	// Why says field by field what is not met.
	Why []string `json:"why"`
}

// question is one side of a flow.
type question struct {
	f             Flow
	subject, peer party
}

// side turns the trace of one direction into an answer.
func (c *Cluster) side(d program.Direction, t program.Side, q question) Side {
	if q.subject.pod == nil {
		return Side{Cause: NoSubject}
	}
	isolating, others := c.selecting(d, q.subject.pod)
	s := Side{Others: others}
	for _, p := range isolating {
		s.Isolating = append(s.Isolating, p.Key)
	}
	switch {
	case t.Drops() && (len(c.claimants[q.subject.addr]) > 1 || len(isolating) == 0):
		s.Cause, s.Claimants = Contested, c.claimants[q.subject.addr]
		s.Change = "delete one of the pods, or wait until one is gone"
	case t.Drops():
		s.Findings = c.findings(q.subject.pod.Node, d, isolating)
		c.deny(&s, d, t, q, isolating)
	case len(isolating) == 0:
		s.Cause = NotIsolated
	case t.Allows == nil: // the node to its own pod meets no chain
		s.Cause = OwnNode
	default:
		s.Cause, s.Rules = AllowedByRule, c.allowing(d, t.Allows, q, isolating)
	}
	return s
}

// selecting returns the policies of a direction that select the pod, in the order of their
// names, and those that do not.
func (c *Cluster) selecting(d program.Direction, pod *cluster.Pod) (isolating []*cluster.Policy, others []Other) {
	for _, p := range c.policies[pod.Key.Namespace] {
		switch {
		case d == program.Ingress && !p.IsolatesIngress, d == program.Egress && !p.IsolatesEgress:
		case p.Subject.Matches(pod.Labels) && p.Audit:
			others = append(others, Other{Policy: p.Key, Audit: true, Why: auditWords(p)})
		case p.Subject.Matches(pod.Labels):
			isolating = append(isolating, p)
		default:
			others = append(others, Other{Policy: p.Key, Why: whyNot("spec.podSelector", p.Subject, pod.Labels)})
		}
	}
	slices.SortFunc(isolating, func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(others, func(a, b Other) int { return a.Policy.Compare(b.Policy) })
	return isolating, others
}

// allowing names the rules of isolating policies that allow the flow. Pods whose
// policies compile to the same rules share a chain, so an origin may be a policy of
// another pod, and one that says the same may be missing.
func (c *Cluster) allowing(d program.Direction, r *program.Rule, q question,
	isolating []*cluster.Policy) (list []RuleRef) {
	for _, p := range isolating {
		for _, rule := range rulesOf(p, d) {
			o := program.Origin{Policy: p.Key.String(), Index: rule.Index}
			at := ref(d, o)
			if slices.Contains(r.Origins, o) ||
				c.peerMiss(d, at.Path, p, rule, q).matches && portMiss(at.Path, rule, q, d).matches {
				list = append(list, at)
			}
		}
	}
	slices.SortFunc(list, func(a, b RuleRef) int {
		return cmp.Or(a.Policy.Compare(b.Policy), cmp.Compare(a.Path,
			b.Path))
	})
	return list
}
