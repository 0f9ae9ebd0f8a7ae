// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Usage writes the help text, at most 80 columns wide.
func Usage(out io.Writer) {
	var b strings.Builder
	b.WriteString("Usage: podwall-agent [flags]\n\n")
	wrap(&b, "", "Enforces Kubernetes network policies on this node. Without flags the policies come from the API "+
		"server that the pod's service account names. The flags are those of kube-router's firewall, with the same "+
		"meaning, and a few more.")
	defaults := Default()
	for _, g := range groups() {
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		for _, o := range g.options {
			writeOption(&b, o, o.bind(&defaults).String())
		}
	}
	b.WriteString("\nFlags of kube-router that are recognised and have no effect here:\n")
	wrap(&b, "  ", strings.Join(foreignNames(false), ", "))
	b.WriteString("\nFlags of kube-router that are refused when true:\n")
	wrap(&b, "  ", strings.Join(foreignNames(true), ", "))
	b.WriteString("\nExit codes:\n")
	for _, c := range exitCodes() {
		wrap(&b, "  ", c)
	}
	_, _ = io.WriteString(out, b.String()) // help that cannot be written has no better place to go
}

// exitCodes says what the program's exit codes mean.
func exitCodes() []string {
	return []string{
		"0  stopped by a signal, or done",
		"1  failed while running, also when the first sync took too long; --probe: no",
		"2  a command line that cannot be run",
		"3  this machine cannot enforce: no right, no nftables, or the kernel is too old",
		"4  the wrong place: not the node's network namespace, or an agent is there",
		"5  refused because of the state of the node; nothing was changed",
	}
}

func writeOption(b *strings.Builder, o option, byDefault string) {
	fmt.Fprintf(b, "  %s\n", signature(o))
	help := o.help
	if o.why != "" {
		help += " Why the program does not know this itself: " + o.why
	}
	if byDefault != "" && o.name != "help" && o.name != "version" {
		help += " Default: " + byDefault + "."
	}
	wrap(b, "        ", help)
}

// signature is how a flag is written: -V, --version or --health-port PORT.
func signature(o option) string {
	s := dashed(o.name)
	if o.short != "" && o.short != o.name {
		s = dashed(o.short) + ", " + s
	}
	if o.arg != "" {
		s += " " + o.arg
	}
	return s
}

func foreignNames(refused bool) []string {
	var names []string
	for _, f := range foreignFlags() {
		if f.refused == refused {
			names = append(names, f.name)
		}
	}
	slices.Sort(names)
	return names
}

// wrap writes a paragraph in lines of at most 80 columns.
func wrap(b *strings.Builder, indent, paragraph string) {
	line := indent
	for _, word := range strings.Fields(paragraph) {
		if len(line) > len(indent) && len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}
