// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
)

// Cause is a policy, or a rule of it, that makes flows open or close.
type Cause struct {
	// Side is egress, of the source, or ingress, of the destination.
	Side string `json:"side"`
	// What says what the policy or the rule does, or does not any more.
	What   What        `json:"what"`
	Policy cluster.Key `json:"policy,omitzero"`
	// Path is the field of the rule, or the one that was not understood; empty for a policy.
	Path string `json:"path,omitempty"`
}

// What a policy or a rule does.
type What string

// The causes.
const (
	Allows        What = "allows it"
	AllowedBefore What = "allowed it before"
	Isolates      What = "isolates"
	Isolated      What = "isolated before"
	Contested     What = "another pod has the same address"
	Uncontested   What = "no other pod has the address any more"
	NotInForce    What = "allows it and is not in force"
	// NotUnderstood is said beside another cause, with the first field of its policy that the reader of the
	// objects did not understand.
	NotUnderstood What = "was not understood"
)

// String returns a line for people.
func (c Cause) String() string {
	if c.Policy == (cluster.Key{}) {
		return fmt.Sprintf("%s: %s", c.Side, c.What)
	}
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s", c.Side, c.Policy, c.Path)) + " " + string(c.What)
}

// because returns the causes of a change of a flow that both states have.
func (c *comparer) because(family, port int, src, dst *end, opens bool) (list []Cause, err error) {
	denied := old // the state that denies the flow
	if !opens {
		denied = now
	}
	egress, ingress, err := c.states[denied].Answers.Sides(c.flow(denied, family, port, src, dst))
	if err != nil {
		return nil, fmt.Errorf("judging %s to %s: %w", src.name(), dst.name(), err)
	}
	var both [2]*explain.Explanation
	if !(egress || c.plain("egress", src, opens)) || !(ingress || c.plain("ingress", dst, opens)) {
		if both, err = c.explanations(family, port, src, dst); err != nil {
			return nil, err
		}
	}
	if !egress {
		list = append(list, c.sideCauses("egress", src, opens, egressOf, both)...)
	}
	if !ingress {
		list = append(list, c.sideCauses("ingress", dst, opens, ingressOf, both)...)
	}
	if !opens {
		list = append(list, c.faults(list)...)
	}
	return list, nil
}

// faults are the parts of policies that were not understood in the new state, where such a policy closes
// a flow: of each the first below the rule that allowed the flow, else the first.
func (c *comparer) faults(causes []Cause) (list []Cause) {
	for _, cause := range causes {
		fields := c.states[now].Answers.Faults(cause.Policy, cause.Side)
		if cause.What == AllowedBefore { // in spite of the old ones
			before := c.states[old].Answers.Faults(cause.Policy, cause.Side)
			fields = slices.DeleteFunc(fields, func(f string) bool { return slices.Contains(before, f) })
		}
		if len(fields) == 0 {
			continue
		}
		i := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, cause.Path+".") })
		fault := Cause{Side: cause.Side, What: NotUnderstood, Policy: cause.Policy, Path: fields[max(0, i)]}
		if !slices.Contains(list, fault) {
			list = append(list, fault)
		}
	}
	return list
}

func egressOf(e *explain.Explanation) explain.Side  { return e.Egress }
func ingressOf(e *explain.Explanation) explain.Side { return e.Ingress }

func (c *comparer) explanations(family, port int, src, dst *end) (both [2]*explain.Explanation, err error) {
	for state, s := range c.states {
		if both[state], err = s.Answers.Explain(c.flow(state, family, port, src, dst)); err != nil {
			return both, fmt.Errorf("explaining %s to %s: %w", src.name(), dst.name(), err)
		}
	}
	return both, nil
}

// isolation are the policies that isolate a pod.
type isolation struct{ egress, ingress []cluster.Key }

func (i isolation) of(side string) []cluster.Key {
	if side == "egress" {
		return i.egress
	}
	return i.ingress
}

// isolations returns the policies of an end in both states.
func (c *comparer) isolations(e *end) *[2]isolation {
	if known := c.isolating[e]; known != nil {
		return known
	}
	found := &[2]isolation{}
	for state, s := range c.states {
		pod := c.pods[state][e.key]
		if pod == nil {
			continue
		}
		for _, p := range s.Snapshot.Policies {
			if p.Audit || p.Key.Namespace != pod.Key.Namespace || !p.Subject.Matches(pod.Labels) {
				continue
			}
			if p.IsolatesEgress {
				found[state].egress = append(found[state].egress, p.Key)
			}
			if p.IsolatesIngress {
				found[state].ingress = append(found[state].ingress, p.Key)
			}
		}
		slices.SortFunc(found[state].egress, cluster.Key.Compare)
		slices.SortFunc(found[state].ingress, cluster.Key.Compare)
	}
	c.isolating[e] = found
	return found
}

// plain reports whether the state that allows has no policy for this side: then the
// policies of the other one are the cause, and no rule is.
func (c *comparer) plain(side string, subject *end, opens bool) bool {
	allowing := now
	if !opens {
		allowing = old
	}
	return !subject.special && len(c.isolations(subject)[allowing].of(side)) == 0
}

// sideCauses returns the causes of one side. The explanations are not read for a plain one.
func (c *comparer) sideCauses(name string, subject *end, opens bool, of func(*explain.Explanation) explain.Side,
	both [2]*explain.Explanation) (list []Cause) {
	if c.plain(name, subject, opens) {
		states := c.isolations(subject)
		if opens {
			return policies(name, Isolated, states[old].of(name), states[now].of(name))
		}
		return policies(name, Isolates, states[now].of(name), states[old].of(name))
	}
	if list = causesOf(name, opens, of(both[old]), of(both[now])); len(list) == 0 {
		list = []Cause{{Side: name, What: Contested}} // and policies hold for the other one
	}
	return list
}

// causesOf compares a side that was denied and is allowed (opens), or the reverse.
func causesOf(side string, opens bool, before, after explain.Side) (list []Cause) {
	if opens {
		switch {
		case after.Cause == explain.AllowedByRule:
			return rules(side, Allows, after.Rules)
		case before.Cause == explain.Contested:
			return []Cause{{Side: side, What: Uncontested}}
		}
		return policies(side, Isolated, before.Isolating, after.Isolating)
	}
	switch {
	case after.Cause == explain.Contested:
		return []Cause{{Side: side, What: Contested}}
	case after.Cause == explain.NotInForce:
		return rules(side, NotInForce, after.Rules)
	case before.Cause == explain.AllowedByRule:
		return rules(side, AllowedBefore, before.Rules)
	}
	return policies(side, Isolates, after.Isolating, before.Isolating)
}

func rules(side string, what What, refs []explain.RuleRef) (list []Cause) {
	for _, r := range refs {
		list = append(list, Cause{Side: side, What: what, Policy: r.Policy, Path: r.Path})
	}
	return list
}

// policies are those of one state that are not in the other.
func policies(side string, what What, in, notIn []cluster.Key) (list []Cause) {
	for _, k := range in {
		if !slices.Contains(notIn, k) {
			list = append(list, Cause{Side: side, What: what, Policy: k})
		}
	}
	return list
}
