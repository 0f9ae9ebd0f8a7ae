// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	columns   = 80
	maxTitle  = 38 // of a row; the rest of a line is for some ten columns
	cellWidth = 4
	maxNamed  = 4  // pods that a line of the legend names
	maxSome   = 20 // cells that are counted below a matrix
)

// String returns the matrix for people, at most 80 columns wide: one block for all ports
// whose verdicts are the same, in as many parts as there must be for all columns.
func (m *Matrix) String() string {
	var b strings.Builder
	if len(m.Ends) == 0 {
		b.WriteString("There is no pod that policies can speak about.\n")
	}
	sets := m.portSets()
	if len(m.Ends) == 0 {
		sets = nil
	}
	t := m.table()
	for _, set := range sets {
		b.WriteString(wrap(m.heading(set), "  ") + "\n")
		m.rows(&b, t, set[0])
		m.partial(&b, set[0])
		b.WriteString("\n")
	}
	m.legend(&b, t)
	return b.String()
}

// table is what all blocks have in common.
type table struct {
	titles []string // of the rows, of equal width
	cut    []string // titles that did not fit
}

func (m *Matrix) table() table {
	var t table
	width := 0
	for i, e := range m.Ends {
		full := e.title(i)
		short := shorten(full, maxTitle)
		if short != full {
			t.cut = append(t.cut, strings.TrimSpace(full))
		}
		width = max(width, utf8.RuneCountInString(short))
		t.titles = append(t.titles, short)
	}
	for i := range t.titles {
		t.titles[i] = pad(t.titles[i], width)
	}
	return t
}

func (e End) title(i int) string {
	switch {
	case len(e.Pods) == 0:
		return fmt.Sprintf("%3d %s (outside)", i+1, e.Name)
	case len(e.Pods) > 1:
		return fmt.Sprintf("%3d %s ×%d", i+1, e.Name, len(e.Pods))
	}
	return fmt.Sprintf("%3d %s", i+1, e.Name)
}

// rows writes the matrix of a port, source by source.
func (m *Matrix) rows(b *strings.Builder, t table, port int) {
	blank := pad("", utf8.RuneCountInString(t.titles[0]))
	room := max(1, (columns-len(blank)-1)/cellWidth)
	all := make([]int, len(m.Ends))
	for i := range all {
		all[i] = i
	}
	for block := range slices.Chunk(all, room) {
		if block[0] > 0 {
			b.WriteString("\n")
		}
		line := blank + " "
		for _, d := range block {
			line += " " + center(fmt.Sprint(d+1), cellWidth-1)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		for s, title := range t.titles {
			line := title + " "
			for _, d := range block {
				line += "  " + m.Cell(port, s, d).mark(m.self(s, d)) + " "
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
}

// partial counts the flows of cells that are neither allowed nor denied.
func (m *Matrix) partial(b *strings.Builder, port int) {
	var list []string
	for s := range m.Ends {
		for d := range m.Ends {
			if c := m.Cell(port, s, d); c.Verdict() == Some {
				list = append(list, fmt.Sprintf("%d → %d: %s", s+1, d+1, c.total()))
			}
		}
	}
	if len(list) == 0 {
		return
	}
	text := strings.Join(list[:min(len(list), maxSome)], "; ")
	if more := len(list) - maxSome; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	b.WriteString(wrap("~ "+text, "  ") + "\n")
}

func (m *Matrix) legend(b *strings.Builder, t table) {
	say := func(text string) { b.WriteString(wrap(text, "  ") + "\n") }
	say("A row is a source, a column a destination.")
	say("✓ all flows are allowed, ✗ none, ~ some, 4 those of IPv4, 6 those of IPv6, · a pod to itself, " +
		"which is always allowed; blank: no flow, the ends have no address of one family, or both are outside. " +
		"A node always reaches its own pods.")
	if m.auditing() {
		say("a: all are allowed, some of them only because policies are in audit mode.")
	}
	for _, text := range t.cut {
		say(text)
	}
	for i, e := range m.Ends {
		if len(e.Pods) > 1 && m.By == ByWorkload {
			say(fmt.Sprintf("%d: %s", i+1, e.firstPods()))
		}
	}
	for _, why := range []string{onHost, addrless, placeless, finished} {
		var names []string
		for _, l := range m.LeftOut {
			if l.Why == why {
				names = append(names, l.Pod.String())
			}
		}
		if len(names) > 0 {
			say(fmt.Sprintf("Left out, %s: %s", strings.Replace(why, "it ", "since it ", 1), some(names)))
		}
	}
}

// firstPods names the first pods of an end.
func (e End) firstPods() string {
	names := make([]string, len(e.Pods))
	for i, p := range e.Pods {
		names[i] = p.Name
	}
	return some(names)
}

// some names the first of a list.
func some(names []string) string {
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func center(s string, width int) string {
	missing := max(0, width-utf8.RuneCountInString(s))
	return strings.Repeat(" ", missing/2) + s + strings.Repeat(" ", missing-missing/2)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// shorten cuts a text in its middle: the ends of names of pods differ.
func shorten(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	tail := (width - 1) / 2
	return string(r[:width-1-tail]) + "…" + string(r[len(r)-tail:])
}

// wrap breaks a text at spaces; further lines begin with the indent.
func wrap(text, indent string) string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns:
			lines, line = append(lines, line), indent+word
		default:
			line += " " + word
		}
	}
	return strings.Join(append(lines, line), "\n")
}
