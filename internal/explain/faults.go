// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/program"
)

// kindPolicy is the kind of the diagnostics that explain a denial.
const kindPolicy = "NetworkPolicy"

// Report adds what the reader of the objects found about policies, so that denied flows
// are explained by a fault too: the part of a policy that was not understood matches
// nothing. Diagnostics of other kinds have no effect. It is called before the first
// question.
func (c *Cluster) Report(found []cluster.Diagnostic) {
	for _, d := range found {
		if d.Kind == kindPolicy && !slices.Contains(c.reported[d.Object], d) {
			c.reported[d.Object] = append(c.reported[d.Object], d)
		}
	}
}

// findings returns what was found about policies that bears on one direction: by the agent
// of a node, and by the reader of the objects.
func (c *Cluster) findings(name string, d program.Direction, policies []*cluster.Policy) (list []cluster.Diagnostic) {
	for _, f := range c.node(name).findings {
		if slices.ContainsFunc(policies, func(p *cluster.Policy) bool { return p.Key == f.Object }) {
			list = append(list, f)
		}
	}
	for _, p := range policies {
		for _, f := range c.reported[p.Key] {
			if !under(f.Field, "spec."+other(d).String()) && !slices.Contains(list, f) {
				list = append(list, f)
			}
		}
	}
	return list
}

func other(d program.Direction) program.Direction {
	if d == program.Egress {
		return program.Ingress
	}
	return program.Egress
}

// noRules proposes a change where no isolating policy has a rule that was understood: to
// correct the first policy with a fault, else a rule.
func (c *Cluster) noRules(d program.Direction, isolating []*cluster.Policy) string {
	for _, p := range isolating {
		fields := c.Faults(p.Key, d.String())
		if len(fields) > 0 {
			return line("correct %s of %s", strings.Join(fields, " and "), p.Key)
		}
	}
	return line("add a rule to spec.%s of %s: its policies have none", d, isolating[0].Key)
}

// faulty returns the fields of a policy that were not understood.
func (c *Cluster) faulty(policy cluster.Key, bears func(field string) bool) (fields []string) {
	for _, f := range c.reported[policy] {
		if f.Severity == cluster.Error && f.Field != "" && bears(f.Field) && !slices.Contains(fields, f.Field) {
			fields = append(fields, f.Field)
		}
	}
	return fields
}

// Faults returns the fields of a policy that were not understood and that bear on a side, "egress" or "ingress".
func (c *Cluster) Faults(policy cluster.Key, side string) []string {
	otherSide := "spec.ingress"
	if side == "ingress" {
		otherSide = "spec.egress"
	}
	return c.faulty(policy, func(f string) bool { return !under(f, otherSide) })
}

// corrected adds the faults of a half that the flow does not meet, and proposes to correct
// them. Field is that of the half, as in spec.ingress[0].from. In a half of which nothing
// was understood the fault may be one level higher: a field of the rule.
func (c *Cluster) corrected(h half, p *cluster.Policy, rule, field string) half {
	fields := c.faulty(p.Key, func(f string) bool { return under(f, field) })
	if len(fields) == 0 && h.empty {
		fields = c.faulty(p.Key, func(f string) bool { return under(f, rule) })
	}
	if !h.matches && len(fields) > 0 {
		h.change = "correct " + plain(strings.Join(fields, " and "))
	}
	return h
}

// under reports whether a field is another one or inside it.
func under(field, of string) bool {
	rest, ok := strings.CutPrefix(field, of)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
