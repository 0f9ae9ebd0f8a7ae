// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// The bounds of the members of all sets that the policies of a namespace refer to: eight times the
// number of pod addresses, so that policies which mean every pod fit, and never fewer than
// minElements.
const (
	minElements     = 1 << 18
	timesEveryOther = 8
)

// over are the policies of a namespace that are above its budget.
type over map[*Resolved]bool

// aboveBudget returns the policies whose sets have too many members, by namespace. addresses is the
// number of pod addresses. The result depends on the members only.
func aboveBudget(parts map[string]*part, size func(SetKey) int, addresses int) map[string]over {
	budget := max(minElements, timesEveryOther*addresses)
	var found map[string]over
	for ns, p := range parts {
		if o := p.over(size, budget); len(o) > 0 {
			if found == nil {
				found = map[string]over{}
			}
			found[ns] = o
		}
	}
	return found
}

// over returns the policies for which a budget has no room: those with the largest sets.
func (p *part) over(size func(SetKey) int, budget int) over {
	total := 0
	for key := range p.specs {
		total += size(key)
	}
	if total <= budget {
		return nil
	}
	own := make(map[*Resolved]int, len(p.resolved))
	for _, r := range p.resolved {
		for key := range r.specs() {
			own[r] += size(key)
		}
	}
	order := slices.SortedFunc(slices.Values(p.resolved), func(a, b *Resolved) int {
		return cmp.Or(cmp.Compare(own[a], own[b]), a.Policy.Key.Compare(b.Policy.Key))
	})
	out, known, sum := over{}, map[SetKey]bool{}, 0
	for _, r := range order {
		for key := range r.specs() {
			if !known[key] {
				known[key] = true
				sum += size(key)
			}
		}
		if sum > budget && own[r] > 0 {
			out[r] = true
		}
	}
	return out
}

// without returns the part with some policies allowing nothing.
func (p *part) without(out over) *part {
	if len(out) == 0 {
		return p
	}
	q := &part{specs: map[SetKey]*SetSpec{}}
	closed := map[*Resolved]*Resolved{}
	for _, r := range p.resolved {
		if out[r] {
			closed[r] = r.closed
			continue
		}
		maps.Copy(q.specs, r.specs())
	}
	for _, w := range p.workloads {
		for _, i := range []*Isolation{&w.Ingress, &w.Egress, &w.AuditIngress, &w.AuditEgress} {
			i.Policies = swapped(i.Policies, closed)
		}
		q.workloads = append(q.workloads, w)
	}
	return q
}

func swapped(list []*Resolved, by map[*Resolved]*Resolved) []*Resolved {
	list = slices.Clone(list)
	for i, r := range list {
		if c := by[r]; c != nil {
			list[i] = c
		}
	}
	return list
}

// diagnostics names the policies that allow nothing because their sets are too large.
func (o over) diagnostics(size func(SetKey) int) (list []cluster.Diagnostic) {
	for r := range o {
		n := 0
		for key := range r.specs() {
			n += size(key)
		}
		list = append(list, cluster.Diagnostic{Severity: cluster.Error, Kind: "NetworkPolicy", Object: r.Policy.Key,
			Field: "spec",
			Message: fmt.Sprintf("its selectors select %d addresses in all, more than the policies of a namespace "+
				"may have together: it allows nothing, its pods stay isolated", n),
			Cure: "use fewer different selectors that select many pods; docs/limits.md has the figures"})
	}
	slices.SortFunc(list, func(a, b cluster.Diagnostic) int { return a.Object.Compare(b.Object) })
	return list[:min(len(list), maxDiagnostics)]
}

// maxDiagnostics bounds the diagnostics about one namespace.
const maxDiagnostics = 20

func diagnostics(out map[string]over, size func(SetKey) int) (list []cluster.Diagnostic) {
	for _, ns := range slices.Sorted(maps.Keys(out)) {
		list = append(list, out[ns].diagnostics(size)...)
	}
	return list
}

func sameOver(a, b map[string]over) bool {
	return maps.EqualFunc(a, b, func(x, y over) bool { return maps.Equal(x, y) })
}
