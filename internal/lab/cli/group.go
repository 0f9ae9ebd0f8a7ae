// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"slices"
)

// group are ends that are shown as one: pods of one namespace, on one node and with the
// same labels, for which nothing differs in what was measured.
type group []int // indexes of ends

// groupsOf puts ends together that are alike in all views.
func groupsOf(ends []end, ports int, views ...*view) []group {
	var groups []group
	byKind := map[string][]int{} // indexes of groups
	for i, e := range ends {
		kind := e.kind()
		same := slices.IndexFunc(byKind[kind], func(g int) bool { return alike(groups[g][0], i, ports, views) })
		if e.pod != nil && same >= 0 {
			g := byKind[kind][same]
			groups[g] = append(groups[g], i)
			continue
		}
		byKind[kind] = append(byKind[kind], len(groups))
		groups = append(groups, group{i})
	}
	return groups
}

// kind is what pods must have in common to be shown as one.
func (e end) kind() string {
	if e.pod == nil {
		return ""
	}
	_, four := e.address(false)
	_, six := e.address(true)
	return fmt.Sprintf("%q %q %v %t %t %s", e.namespace(), e.pod.Node, e.pod.Labels, four, six, e.further)
}

// alike reports whether two ends can be exchanged in all views.
func alike(a, b, ports int, views []*view) bool {
	for _, v := range views {
		for p := range ports {
			if !v.exchangeable(p, a, b) {
				return false
			}
		}
	}
	return true
}

func (v *view) exchangeable(port, a, b int) bool {
	if v.mark(port, a, b) != v.mark(port, b, a) {
		return false
	}
	for x := range v.ends {
		if x == a || x == b {
			continue
		}
		if v.mark(port, a, x) != v.mark(port, b, x) || v.mark(port, x, a) != v.mark(port, x, b) {
			return false
		}
	}
	return true
}

// groupMark is what a cell says about two groups.
func (v *view) groupMark(port int, src, dst group) string {
	if src[0] == dst[0] && len(src) > 1 {
		return v.mark(port, src[0], src[1])
	}
	return v.mark(port, src[0], dst[0])
}
