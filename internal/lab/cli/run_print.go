// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/podwall/podwall/internal/logging"
)

// print prints a matrix for each group of ports that are alike.
func (r *runReport) print(out io.Writer, p paint) {
	fmt.Fprintf(out, "%d endpoints, wiring %s, datapath %s\n", len(r.after.ends), r.Wiring, r.Datapath)
	names := titles(r.after.ends, func(e end) string { return strings.TrimRight(fmt.Sprintf("%3s %s", e.short, e.label()), " ") })
	for _, group := range r.groups() {
		var ports []string
		for _, i := range group {
			ports = append(ports, r.after.ports[i].String())
		}
		fmt.Fprintf(out, "\n%s\n", p.in(bold, fmt.Sprintf("%s: %d changed by the policies", strings.Join(ports, ", "), changed(r.before, r.after, group[0]))))
		for i, row := range p.rows(r.after, r.before, group[0]) {
			fmt.Fprintf(out, "%s %s\n", names[i], strings.TrimRight(row, " "))
		}
	}
	for _, s := range r.Services {
		fmt.Fprintf(out, "\n%s\n", p.in(bold, logging.Plain(fmt.Sprintf("Service %s, %s", s.Service, s.Front))))
		for _, e := range r.after.ends {
			if verdict, asked := s.From[e.name]; asked {
				fmt.Fprintf(out, "  %s %s\n", strings.TrimSpace(p.cell(glyph(verdict), "")), logging.Plain(e.name))
			}
		}
	}
	fmt.Fprintf(out, "\n%d packets; ", r.before.packets()+r.after.packets())
	if len(r.Differences) == 0 {
		fmt.Fprintln(out, "every verdict is what the policies say.")
		if !r.asWritten {
			fmt.Fprintln(out, p.in(red, "But not all that is written is enforced: see the messages above about the manifests."))
		}
		return
	}
	fmt.Fprintf(out, "%d verdicts are not what the policies say:\n", len(r.Differences))
	for _, text := range r.Differences {
		fmt.Fprintln(out, p.in(red, logging.Plain(text)))
	}
}

func (e end) label() string {
	if e.pod == nil {
		return logging.Plain(e.name + " (outside)")
	}
	return logging.Plain(e.name + " (" + e.pod.Node + ")")
}

// groups puts ports together whose matrices are the same.
func (r *runReport) groups() [][]int {
	var groups [][]int
next:
	for i := range r.after.ports {
		for g := range groups {
			if same(r.after, r.before, groups[g][0], i) {
				groups[g] = append(groups[g], i)
				continue next
			}
		}
		groups = append(groups, []int{i})
	}
	return groups
}
