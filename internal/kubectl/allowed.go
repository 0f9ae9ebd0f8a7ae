// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

// auditFlag is the agents' flag that says whether audit mode is obeyed, and ours that says what theirs is.
const auditFlag = "policy-audit"

// The values of the agents' flag, the strictest first; unset is what an agent without it does.
const (
	auditForbid     = "forbid"
	auditAllow      = "allow"
	auditNamespaces = "allow-namespaces"
	auditUnset      = auditAllow
)

func auditValues() []string { return []string{auditForbid, auditAllow, auditNamespaces} }

// allowance is what agents with the value of the flag let users do.
func allowance(value string) cluster.Allowance {
	return cluster.Allowance{Audit: value != auditForbid, AuditNamespaces: value == auditNamespaces}
}

// checkAudit checks the flag that says what agents do.
func (s *source) checkAudit() error {
	if s.audit != "" && !slices.Contains(auditValues(), s.audit) {
		return fmt.Errorf("unknown --%s %q, want %s", auditFlag, s.audit, strings.Join(auditValues(), ", "))
	}
	return nil
}

// auditMode says which value of the flag counts, and, where an object asks for audit mode, what is to be
// known about it. agents has the values of those that were seen, by node.
func (s *source) auditMode(agents map[string]string, read *manifest.Result) (value, note string) {
	values := slices.Compact(slices.Sorted(maps.Values(agents)))
	switch {
	case s.audit != "":
		return s.audit, ""
	case len(values) == 1 && slices.Contains(auditValues(), values[0]):
		return values[0], ""
	case len(values) > 1:
		i := slices.IndexFunc(auditValues(), func(v string) bool { return slices.Contains(values, v) })
		value = auditValues()[max(i, 0)]
		note = fmt.Sprintf("agents differ in --%s (%s): the answer is that of %s", auditFlag,
			strings.Join(values, ", "), value)
	case len(values) == 1:
		value = auditUnset
		note = fmt.Sprintf("the agents' --%s=%s is not known here: audit mode is taken as with %s; name another value "+
			"with --%s", auditFlag, values[0], value, auditFlag)
	default:
		value = auditUnset
		note = fmt.Sprintf("no agent was seen: audit mode is taken as agents with --%s=%s take it; name another "+
			"value with --%s", auditFlag, value, auditFlag)
	}
	if !asksForAudit(read) {
		return value, ""
	}
	return value, note
}

// asksForAudit reports whether a policy or a namespace asks for audit mode.
func asksForAudit(r *manifest.Result) bool {
	return slices.ContainsFunc(r.Policies, func(p *cluster.Policy) bool { return p.Audit }) ||
		slices.ContainsFunc(r.Namespaces, func(n *cluster.Namespace) bool { return n.Mode == cluster.ModeAudit })
}

// auditOfAgent returns the value of the flag of an agent's container.
func auditOfAgent(p *corev1.Pod) string {
	value := auditUnset
	for _, c := range p.Spec.Containers {
		if c.Name != agentContainer {
			continue
		}
		args := slices.Concat(c.Command, c.Args)
		for i, a := range args {
			name, given, has := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-"), "=")
			switch {
			case name != auditFlag || !strings.HasPrefix(a, "-"):
			case has:
				value = given
			case i+1 < len(args):
				value = args[i+1]
			}
		}
	}
	return value
}
