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
	p.line("%s", p.paint.in(bold, fmt.Sprintf("podwall demo: %d pods on %d nodes, 2 hosts outside, IPv4 and IPv6, real packets on this kernel",
		len(s.state.Pods), len(s.nodes))))
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
	p.line("✓ arrived   ✗ dropped   4 only IPv4 arrived   [ ] changed by the policy   rows are sources, columns destinations")
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
	if first != nil && equalViews(first.before, e.before) && equalViews(first.after, e.after) {
		p.line("  Example %d  %-58s %5d packets, the same verdicts", e.Number, e.Title, e.before.packets()+e.after.packets())
		return
	}
	p.line("\n  %s  %s", p.paint.in(bold, fmt.Sprintf("Example %d  %s", e.Number, e.Title)), p.paint.in(faint, "examples/"+e.File))
	all := e.after.single()
	names := titles(e.after.ends, func(e end) string { return e.short })
	before, after := p.paint.rows(e.before, nil, shown, all, all), p.paint.rows(e.after, e.before, shown, all, all)
	width := len(e.after.ends) * cellWidth
	p.line("  %s  %s   %s", names[0], pad(fmt.Sprintf(" before, %s", e.Shown), width), fmt.Sprintf(" after: %d changed", changed(e.before, e.after, shown)))
	for i := range before {
		p.line("  %s  %s   %s", names[i], before[i], after[i])
	}
	var others []string
	for i, port := range e.after.ports {
		if i != shown {
			others = append(others, fmt.Sprintf("%s: %d changed", port, changed(e.before, e.after, i)))
		}
	}
	p.line("  %s", p.paint.in(faint, "other ports: "+strings.Join(others, ", ")))
	if len(e.wrong) > 0 {
		p.line("  %s", p.paint.in(red, fmt.Sprintf("%d verdicts are not what the policy says, see the end", len(e.wrong))))
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
	p.line("\n%s", p.paint.in(bold, "The functional table of the seed document"))
	head := fmt.Sprintf("     %-66s %-6s", "", "seed")
	for _, w := range r.Wirings {
		head += fmt.Sprintf(" %-20s", w.Wiring)
	}
	p.line("%s", p.paint.in(faint, strings.TrimRight(head, " ")))
	for _, row := range r.Table {
		p.row(row)
	}
	for _, text := range r.Differences[:min(maxShown, len(r.Differences))] {
		p.line("%s", p.paint.in(red, text))
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
	p.line("\n%s: %d packets sent, %d arrived, %d counted as dropped, in %.1f s.", verdict, r.Packets.Sent, r.Packets.Arrived, r.Packets.Dropped, seconds)
	return nil
}

func (p printer) row(row tableRow) {
	number := "+"
	if row.Row > 0 {
		number = fmt.Sprint(row.Row)
	}
	text := fmt.Sprintf("  %s  %-66s %-6s", number, row.Title, row.Seed)
	var failures []string
	for _, res := range row.Results {
		color := bold + green
		if res.Result != "Pass" {
			color = bold + red
		}
		text += " " + p.paint.in(color, res.Result) + pad(fmt.Sprintf(" (%d packets)", res.Packets), 16)
		for _, f := range res.Failures[:min(5, len(res.Failures))] {
			failures = append(failures, res.Wiring+": "+f)
		}
	}
	p.line("%s", strings.TrimRight(text, " "))
	for _, f := range failures {
		p.line("       %s", p.paint.in(red, f))
	}
}
