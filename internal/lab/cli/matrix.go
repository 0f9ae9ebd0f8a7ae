// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"strings"
	"unicode/utf8"

	"github.com/podwall/podwall/internal/lab/trial"
)

// paint writes marks, in colour where that is wanted.
type paint bool

const (
	green = "\x1b[32m"
	red   = "\x1b[31m"
	bold  = "\x1b[1m"
	faint = "\x1b[2m"
	reset = "\x1b[0m"
)

func (p paint) in(color, s string) string {
	if !p || s == "" {
		return s
	}
	return color + s + reset
}

// cellWidth is the width of a column: a mark in brackets and a space, or a
// short title.
const cellWidth = 4

// verdictMark is mark without audit mode.
func (v *view) verdictMark(port, src, dst int) string {
	if src == dst {
		return "·"
	}
	answer4, ok4 := v.answers[flow{false, port, src, dst}]
	answer6, ok6 := v.answers[flow{true, port, src, dst}]
	four, six := answer4.Verdict.String(), answer6.Verdict.String()
	switch {
	case !ok4 && !ok6:
		return " "
	case !ok6, four == six:
		return glyph(four)
	case !ok4:
		return glyph(six)
	case four == trial.Allowed.String() && six == trial.Denied.String():
		return "4"
	case six == trial.Allowed.String() && four == trial.Denied.String():
		return "6"
	}
	return "?"
}

func glyph(verdict string) string {
	switch verdict {
	case trial.Allowed.String():
		return "✓"
	case trial.Denied.String():
		return "✗"
	case someBackends:
		return verdict
	}
	return "?"
}

// cell returns a mark of fixed width; one that changed stands in brackets.
func (p paint) cell(now, before string) string {
	text, color := " "+now+" ", ""
	switch now {
	case "✓", auditMark:
		color = green
	case "✗":
		color = red
	case "·", " ":
		color = faint
	default:
		color = bold
	}
	arrived := glyph(trial.Allowed.String())
	if before != "" && now != before && (now != auditMark || before != arrived) { // audit mode changes nothing
		text, color = "["+now+"]", bold+color
	}
	return " " + p.in(color, text)
}

// single are all ends of a view, each for itself.
func (v *view) single() []group {
	var list []group
	for i := range v.ends {
		list = append(list, group{i})
	}
	return list
}

// rows returns the matrix of one port without row titles: the column titles
// first. Before may be nil.
func (p paint) rows(v, before *view, port int, sources, columns []group) []string {
	var head strings.Builder
	for _, g := range columns {
		head.WriteString(" " + center(v.ends[g[0]].short, cellWidth-1))
	}
	list := []string{p.in(bold, head.String())}
	for _, src := range sources {
		var row strings.Builder
		for _, dst := range columns {
			was := ""
			if before != nil {
				was = before.groupMark(port, src, dst)
			}
			row.WriteString(p.cell(v.groupMark(port, src, dst), was))
		}
		list = append(list, row.String())
	}
	return list
}

func center(s string, width int) string {
	missing := max(0, width-utf8.RuneCountInString(s))
	return strings.Repeat(" ", missing/2) + s + strings.Repeat(" ", missing-missing/2)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// titles returns the row titles, of equal width.
func titles(ends []end, name func(end) string) []string {
	width := 0
	for _, e := range ends {
		width = max(width, utf8.RuneCountInString(name(e)))
	}
	list := []string{pad("", width)}
	for _, e := range ends {
		list = append(list, pad(name(e), width))
	}
	return list
}

// changed counts the cells whose mark differs.
func changed(a, b *view, port int) (n int) {
	for src := range a.ends {
		for dst := range a.ends {
			if a.verdictMark(port, src, dst) != b.verdictMark(port, src, dst) {
				n++
			}
		}
	}
	return n
}

// same reports whether two ports have the same matrix and changed in the same
// way.
func same(v, before *view, a, b int) bool {
	for src := range v.ends {
		for dst := range v.ends {
			if v.mark(a, src, dst) != v.mark(b, src, dst) || before.mark(a, src, dst) != before.mark(b, src, dst) {
				return false
			}
		}
	}
	return true
}
