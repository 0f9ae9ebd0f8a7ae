// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"fmt"
	"strings"
)

// Nothing reports whether no other proxy was found.
func (p Plan) Nothing() bool { return len(p.Found)+len(p.Refusals) == 0 }

// Text lists the plan for people: what was found, what is removed step by step, what stays, and the
// refusals.
func (p Plan) Text() string {
	var b strings.Builder
	for _, f := range p.Found {
		fmt.Fprintf(&b, "found: %s\n", f)
	}
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "step %d: %s\n", i+1, s)
	}
	for _, l := range p.Left {
		fmt.Fprintf(&b, "stays: %s: %s\n  what to do: %s\n", l.What, l.Why, strings.TrimSuffix(l.Cure, "\n"))
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	for _, r := range p.Refusals {
		fmt.Fprintf(&b, "refused: %s\n  what to do: %s\n", r.Why, r.Cure)
	}
	if p.Nothing() {
		b.WriteString("no other service proxy is here\n")
	}
	return b.String()
}

// String describes a step in a line.
func (s Step) String() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(len(s.Removal.Jumps), "rules that lead to chains")
	add(len(s.Removal.Chains), "chains")
	for _, t := range s.Removal.Tables {
		parts = append(parts, "table "+t.String())
	}
	for _, l := range s.Links {
		parts = append(parts, "interface "+l)
	}
	if len(s.Sets) > 0 {
		parts = append(parts, "ipsets "+few(s.Sets))
	}
	return s.Text + ": " + strings.Join(parts, ", ")
}
