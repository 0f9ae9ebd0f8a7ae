// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// part is the layout of one namespace. Policies apply to pods of their own namespace only, so a
// change in one namespace leaves the other parts as they are.
type part struct {
	workloads []Workload  // sorted by key
	resolved  []*Resolved // policies that select one of them, sorted by key
	specs     map[SetKey]*SetSpec
}

// newPart applies the policies of a namespace to its local pods.
func newPart(pods []*cluster.Pod, policies []*cluster.Policy, resolve func(*cluster.Policy) *Resolved) *part {
	part := &part{specs: map[SetKey]*SetSpec{}}
	slices.SortFunc(policies, func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
	resolved := make([]*Resolved, len(policies))
	for _, pod := range pods {
		w := Workload{Pod: pod}
		for _, audit := range []bool{false, true} { // what is enforced decides what is left to audit
			for i, p := range policies {
				if p.Audit != audit || audit && !w.leaves(p) || !p.Subject.Matches(pod.Labels) {
					continue
				}
				if resolved[i] == nil {
					resolved[i] = resolve(p)
				}
				w.isolate(resolved[i])
			}
		}
		part.workloads = append(part.workloads, w)
	}
	for _, r := range resolved {
		if r != nil {
			part.resolved = append(part.resolved, r)
			maps.Copy(part.specs, r.specs())
		}
	}
	slices.SortFunc(part.workloads, func(a, b Workload) int {
		return cmp.Or(a.Pod.Key.Compare(b.Pod.Key), cmp.Compare(a.Pod.UID, b.Pod.UID))
	})
	return part
}

// leaves reports whether the policies that are enforced leave a direction for this one to audit.
func (w *Workload) leaves(p *cluster.Policy) bool {
	return p.IsolatesIngress && !w.Ingress.Isolated || p.IsolatesEgress && !w.Egress.Isolated
}

// isolate adds a policy that selects the pod. Those in audit mode come last.
func (w *Workload) isolate(r *Resolved) {
	ingress, egress := &w.Ingress, &w.Egress
	if r.Policy.Audit {
		ingress, egress = &w.AuditIngress, &w.AuditEgress
	}
	if r.Policy.IsolatesIngress && !(r.Policy.Audit && w.Ingress.Isolated) {
		*ingress = Isolation{true, append(ingress.Policies, r)}
	}
	if r.Policy.IsolatesEgress && !(r.Policy.Audit && w.Egress.Isolated) {
		*egress = Isolation{true, append(egress.Policies, r)}
	}
}

// join joins the parts of all namespaces, without the rules of policies above their budget.
func join(parts map[string]*part, out map[string]over) *Layout {
	l := &Layout{Specs: map[SetKey]*SetSpec{}}
	for _, ns := range slices.Sorted(maps.Keys(parts)) {
		p := parts[ns].without(out[ns])
		l.Workloads = append(l.Workloads, p.workloads...)
		maps.Copy(l.Specs, p.specs)
	}
	return l
}
