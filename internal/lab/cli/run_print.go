// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/logging"
)

// maxTitle is the width of a row's title; the rest of a line is for some ten columns.
const maxTitle = 38

// print prints a matrix for each set of ports that are alike.
func (r *runReport) print(out io.Writer, p paint) {
	say := func(text string) { fmt.Fprintln(out, wrap(logging.Plain(text), "  ")) }
	fmt.Fprintf(out, "%d endpoints, wiring %s, datapath %s\n", len(r.after.ends), r.Wiring, r.Datapath)
	t := r.table()
	for _, text := range t.legend {
		say(text)
	}
	if len(r.Audited) > 0 {
		say("a: arrived, only because policies are in audit mode")
	}
	for _, ports := range r.portSets() {
		fmt.Fprintf(out, "\n%s\n", p.in(bold, wrap(r.heading(ports), "  ")))
		for _, line := range t.lines(p, r.after, r.before, ports[0]) {
			fmt.Fprintln(out, line)
		}
	}
	for _, s := range r.Services {
		r.printService(out, p, s)
	}
	if len(r.LeftOut)+len(r.Notes) > 0 {
		fmt.Fprintln(out)
	}
	for _, l := range r.LeftOut {
		say("Left out: " + l.String())
	}
	for _, text := range r.Notes {
		say(text)
	}
	r.printWhy(out)
	r.printVerdict(out, p)
}

func (r *runReport) printVerdict(out io.Writer, p paint) {
	fmt.Fprintf(out, "\n%d packets; ", r.before.packets()+r.after.packets())
	if len(r.Differences) == 0 {
		fmt.Fprintln(out, "every verdict is what the policies say.")
		if !r.asWritten {
			text := "But not all that is written is enforced: see the messages above about the manifests."
			fmt.Fprintln(out, p.in(red, wrap(text, "")))
		}
		return
	}
	fmt.Fprintf(out, "%d verdicts are not what the policies say:\n", len(r.Differences))
	for _, text := range r.Differences {
		fmt.Fprintln(out, p.in(red, wrap(logging.Plain(text), "  ")))
	}
}

func (r *runReport) heading(ports []int) string {
	var names []string
	for _, i := range ports {
		names = append(names, r.after.ports[i].String())
	}
	return fmt.Sprintf("%s: %d changed by the policies", strings.Join(names, ", "), changed(r.before, r.after,
		ports[0]))
}

// table is how all matrices of a report look: what their rows and columns are.
type table struct {
	rows, columns []group
	titles        []string // by row, of equal width
	legend        []string
}

func (r *runReport) table() table {
	var t table
	width := 0
	scope := r.after.scope
	titles := map[int]string{}
	for _, g := range r.groups {
		full := title(r.after.ends[g[0]], len(g))
		short := cut(full, maxTitle)
		if len(g) > 1 {
			t.legend = append(t.legend, fmt.Sprintf("%s: %s", strings.TrimSpace(full), r.members(g)))
		} else if short != full {
			t.legend = append(t.legend, strings.TrimSpace(full))
		}
		if scope.from[g[0]] {
			t.rows, titles[g[0]] = append(t.rows, g), short
			width = max(width, len([]rune(short)))
		}
		if scope.to[g[0]] {
			t.columns = append(t.columns, g)
		}
	}
	for _, g := range t.rows {
		t.titles = append(t.titles, pad(titles[g[0]], width))
	}
	return t
}

// title names the row of an end and of those that are like it.
func title(e end, count int) string {
	name, place := e.name, " (outside)"
	if count > 1 {
		name += fmt.Sprintf(" ×%d", count)
	}
	if e.pod != nil {
		place = " (" + e.pod.Node + ")"
	}
	return logging.Plain(fmt.Sprintf("%3s %s%s", e.short, name, place))
}

// lines returns the matrix of a port, in blocks of so many columns as a terminal has
// room for.
func (t table) lines(p paint, after, before *view, port int) []string {
	if len(t.rows) == 0 {
		return nil
	}
	blank := pad("", len([]rune(t.titles[0])))
	room := max(1, (columns-len(blank)-1)/cellWidth)
	var list []string
	for block := range slices.Chunk(t.columns, room) {
		if len(list) > 0 {
			list = append(list, "")
		}
		rows := p.rows(after, before, port, t.rows, block)
		for i, name := range append([]string{blank}, t.titles...) {
			list = append(list, strings.TrimRight(name+" "+rows[i], " "))
		}
	}
	return list
}

// members names the ends of a group in short.
func (r *runReport) members(g group) string {
	var names []string
	for _, i := range g[:min(maxNamed, len(g))] {
		e := r.after.ends[i]
		names = append(names, strings.TrimPrefix(e.name, e.namespace()+"/"))
	}
	if more := len(g) - maxNamed; more > 0 {
		return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// from returns who got that verdict of a Service. Groups are named once.
func (r *runReport) from(s serviceView, verdict string) []string {
	var names []string
	for _, g := range r.groups {
		var found []string
		for _, i := range g {
			if name := r.after.ends[i].name; s.From[name] == verdict {
				found = append(found, logging.Plain(name))
			}
		}
		if len(found) == len(g) && len(g) > 1 {
			found = []string{fmt.Sprintf("%s ×%d", found[0], len(g))}
		}
		names = append(names, found...)
	}
	return names
}

func (r *runReport) printService(out io.Writer, p paint, s serviceView) {
	fmt.Fprintf(out, "\n%s\n", p.in(bold, wrap(logging.Plain(fmt.Sprintf("Service %s, %s", s.Service, s.Front)), "  ")))
	for _, verdict := range []string{trial.Allowed.String(), trial.Denied.String(), someBackends,
		trial.Unknown.String()} {
		if names := r.from(s, verdict); len(names) > 0 {
			mark := strings.TrimSpace(p.cell(glyph(verdict), ""))
			fmt.Fprintf(out, "  %s %s\n", mark, strings.TrimPrefix(wrap("    "+strings.Join(names, ", "), "    "),
				"    "))
		}
	}
}

// portSets puts ports together whose matrices are the same.
func (r *runReport) portSets() [][]int {
	var sets [][]int
next:
	for i := range r.after.ports {
		for g := range sets {
			if same(r.after, r.before, sets[g][0], i) {
				sets[g] = append(sets[g], i)
				continue next
			}
		}
		sets = append(sets, []int{i})
	}
	return sets
}
