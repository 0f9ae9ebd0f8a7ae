// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/lab"
)

// printer prints the demo while it runs. With json the text goes to Err as
// progress and the answer comes at the end.
type printer struct {
	Streams
	paint paint
	json  bool
}

// maxShown bounds how many wrong verdicts are printed.
const maxShown = 20

func (p printer) out() io.Writer {
	if p.json {
		return io.Discard
	}
	return p.Out
}

func (p printer) line(format string, args ...any) { fmt.Fprintf(p.out(), format+"\n", args...) }

// cast prints who is there.
func (p printer) cast(s *stage) {
	p.line("%s", p.paint.in(bold, fmt.Sprintf("podwall demo: %d pods on %d nodes, %d hosts outside, real packets",
		len(s.state.Pods), len(s.nodes), len(s.state.Hosts))))
	for _, node := range s.nodes {
		var pods []string
		for _, e := range s.ends {
			if e.pod != nil && e.pod.Node == node {
				pods = append(pods, e.name)
			}
		}
		p.line("  %-8s %s", node, strings.Join(pods, "  "))
	}
	for _, h := range s.state.Hosts {
		p.line("  %-8s outside, %s and %s", h.Name, h.Addrs[0], h.Addrs[1])
	}
	p.line("✓ arrived   ✗ dropped   4 only IPv4 arrived   [ ] changed by the policy")
	p.line("Rows are sources, columns are destinations.")
}

func (p printer) wiring(w lab.Wiring, took time.Duration) {
	p.line("\n%s", p.paint.in(bold, fmt.Sprintf("Wiring %s", w)))
	if p.json {
		fmt.Fprintf(p.Err, "wiring %s: ready after %.1f s\n", w, took.Seconds())
	}
}

// example prints the matrix of an example, unless it is the same as on the
// first wiring.
func (p printer) example(e exampleView, first *exampleView) {
	shown := slices.Index(e.after.ports, e.Shown)
	if p.json {
		fmt.Fprintf(p.Err, "%s: %d packets\n", exampleName(e.example), e.before.packets()+e.after.packets())
	}
	packets := e.before.packets() + e.after.packets()
	if first != nil && equalViews(first.before, e.before) && equalViews(first.after, e.after) {
		p.line("  Example %d  the same verdicts, by %d packets", e.Number, packets)
		return
	}
	p.line("\n%s", p.paint.in(bold, fmt.Sprintf("Example %d  %s", e.Number, e.Title)))
	p.line("%s", p.paint.in(faint, "examples/"+e.File))
	p.matrices(e, shown)
	var others []string
	for i, port := range e.after.ports {
		if i != shown {
			others = append(others, fmt.Sprintf("%s %d", port, changed(e.before, e.after, i)))
		}
	}
	p.line("%s", p.paint.in(faint, wrap("changed on other ports: "+strings.Join(others, ", "), "  ")))
	if len(e.wrong) > 0 {
		p.line("%s", p.paint.in(red, fmt.Sprintf("%d verdicts are not what the policy says, see the end",
			len(e.wrong))))
	}
}

// matrices prints those before and under a policy side by side.
func (p printer) matrices(e exampleView, shown int) {
	all := e.after.single()
	names := titles(e.after.ends, func(e end) string { return e.short })
	before, after := p.paint.rows(e.before, nil, shown, all, all), p.paint.rows(e.after, e.before, shown, all, all)
	left := pad(fmt.Sprintf(" before, %s", e.Shown), len(all)*cellWidth)
	p.line("%s %s   after: %d changed", names[0], left, changed(e.before, e.after, shown))
	for i := range before {
		p.line("%s", strings.TrimRight(names[i]+" "+before[i]+"  "+after[i], " "))
	}
}

func equalViews(a, b *view) bool {
	for port := range a.ports {
		for _, v6 := range []bool{false, true} {
			if !slices.Equal(a.grid(port, v6), b.grid(port, v6)) {
				return false
			}
		}
	}
	return true
}

// summary prints the table and the figures, or all of it as JSON.
func (p printer) summary(r *demoReport) error {
	if p.json {
		enc := json.NewEncoder(p.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	p.line("\n%s", p.paint.in(bold, "The functional table"))
	for _, row := range r.Table {
		p.row(row)
	}
	for _, text := range r.Differences[:min(maxShown, len(r.Differences))] {
		p.line("%s", p.paint.in(red, wrap(text, "  ")))
	}
	if more := len(r.Differences) - maxShown; more > 0 {
		p.line("and %d more verdicts that are not what the policies say; -o json lists all", more)
	}
	seconds := 0.0
	for _, w := range r.Wirings {
		seconds += w.Seconds
	}
	verdict := p.paint.in(bold+green, "All pass")
	if !r.Pass {
		verdict = p.paint.in(bold+red, "Not all pass")
	}
	p.line("\n%s: %d packets sent, %d arrived, %d counted as dropped.",
		verdict, r.Packets.Sent, r.Packets.Arrived, r.Packets.Dropped)
	p.line("It took %.1f s.", seconds)
	return nil
}

// resultWidth is the width of what a wiring's result takes, so that two stand in a line
// behind the one of kube-router.
const resultWidth = 29

func (p printer) row(row tableRow) {
	number := "+"
	if row.Row > 0 {
		number = fmt.Sprint(row.Row)
	}
	p.line("  %s  %s", number, row.Title)
	reference := pad("", 17)
	if row.Seed != "" {
		reference = pad("kube-router "+row.Seed, 17)
	}
	for results := range slices.Chunk(row.Results, 2) {
		text := "     " + reference
		for _, res := range results {
			color := bold + green
			if res.Result != "Pass" {
				color = bold + red
			}
			plain := fmt.Sprintf("%s %s (%d packets)", res.Wiring, res.Result, res.Packets)
			text += strings.Replace(pad(plain, resultWidth), res.Result, p.paint.in(color, res.Result), 1)
		}
		p.line("%s", strings.TrimRight(text, " "))
		reference = pad("", 17)
	}
	for _, res := range row.Results {
		for _, f := range res.Failures[:min(5, len(res.Failures))] {
			p.line("     %s", p.paint.in(red, strings.TrimPrefix(wrap("     "+res.Wiring+": "+f, "       "), "     ")))
		}
	}
}
