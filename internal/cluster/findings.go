// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"slices"
)

// maxNamespaceFindings bounds the diagnostics about the objects of one namespace, because the
// author of its policies decides how many there are.
const maxNamespaceFindings = 100

// sortedDiagnostics returns all current diagnostics but for those about Services, sorted, at most
// maxNamespaceFindings for each namespace. The result is kept until something changes.
func (s *Store) sortedDiagnostics() []Diagnostic {
	if s.told != nil && s.reserved.known {
		return s.told
	}
	s.told = s.diagnostics.sorted(s.reservedClaims())
	return s.told
}

// findings are diagnostics by origin.
type findings map[any][]Diagnostic

// set replaces the diagnostics of an origin and reports whether they changed.
func (f findings) set(origin any, list []Diagnostic) bool {
	if slices.Equal(f[origin], list) {
		return false
	}
	if len(list) == 0 {
		delete(f, origin)
	} else {
		f[origin] = list
	}
	return true
}

// sorted returns all diagnostics and those of the lists, sorted and bounded.
func (f findings) sorted(lists ...[]Diagnostic) []Diagnostic {
	for _, list := range f {
		lists = append(lists, list)
	}
	lists = slices.DeleteFunc(lists, func(l []Diagnostic) bool { return len(l) == 0 })
	// Sorting the lists first leaves little work to the sort of all.
	slices.SortFunc(lists, func(a, b []Diagnostic) int { return compareDiagnostics(a[0], b[0]) })
	all := slices.Concat(lists...)
	slices.SortFunc(all, compareDiagnostics)
	return BoundFindings(all)
}

func compareDiagnostics(a, b Diagnostic) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Object.Compare(b.Object),
		cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
}

// BoundFindings returns the diagnostics without those above the bound of a namespace, and notes their
// number in the last one that stays. The list is left as it is.
func BoundFindings(all []Diagnostic) []Diagnostic {
	seen, last := map[string]int{}, map[string]int{}
	list := make([]Diagnostic, 0, len(all))
	for _, d := range all {
		ns := d.Object.Namespace
		if seen[ns]++; ns == "" || seen[ns] <= maxNamespaceFindings {
			last[ns] = len(list)
			list = append(list, d)
		}
	}
	for ns, n := range seen {
		if more := n - maxNamespaceFindings; more > 0 && ns != "" {
			d := &list[last[ns]]
			d.Message = fmt.Sprintf("%s (and %d more findings in this namespace)", d.Message, more)
		}
	}
	return list
}
