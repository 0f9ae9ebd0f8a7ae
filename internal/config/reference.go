// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Reference writes docs/configuration.md. A test compares the committed file
// with it.
func Reference(out io.Writer) error {
	var b strings.Builder
	b.WriteString("# Configuration of podwall-agent\n\n")
	b.WriteString("<!-- Generated from internal/config. Change it there, then run: go test ./internal/config " +
		"-update -->\n\n")
	b.WriteString(referenceIntro())
	for _, g := range groups() {
		fmt.Fprintf(&b, "\n## %s\n", g.title)
		for _, o := range g.options {
			writeReference(&b, o)
		}
	}
	b.WriteString("\n## The environment\n\n`NODE_NAME` names the node when `--hostname-override` is not given. A " +
		"DaemonSet fills it from `spec.nodeName`.\n")
	writeForeign(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

func referenceIntro() string {
	return `The flags are those of kube-router's firewall with the same meaning, so its
command line works unchanged. Both ` + "`--flag=value` and `--flag value`" + ` are read; a
switch takes its value with an equals sign only (` + "`--enable-ipv6=false`" + `). The last of
several equal flags counts. There is no configuration file.

A command line that cannot be run is answered with one line on standard error
and exit code 2. A flag that was recognised and has no effect is answered with
one line in the log.
`
}

func writeReference(b *strings.Builder, o option) {
	fmt.Fprintf(b, "\n### `%s`\n\n%s\n", signature(o), o.help)
	if o.why != "" {
		fmt.Fprintf(b, "\n*Why the program does not know this itself:* %s\n", o.why)
	}
	if o.name == "help" || o.name == "version" {
		return
	}
	defaults := Default()
	fmt.Fprintf(b, "\nDefault: %s\n", cmp.Or(code(o.bind(&defaults).String()), "empty"))
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func writeForeign(b *strings.Builder) {
	b.WriteString("\n## Other flags of kube-router\n\nThey are recognised, so that parsing goes on, and their " +
		"values are checked.\n")
	b.WriteString("\n| flag | value | answer |\n|---|---|---|\n")
	list := foreignFlags()
	slices.SortFunc(list, func(a, b foreign) int { return strings.Compare(a.name, b.name) })
	for _, f := range list {
		answer := "not needed: " + f.answer
		if f.refused {
			answer = "an error when true; not supported yet: " + f.answer
		}
		fmt.Fprintf(b, "| `--%s` | %s | %s |\n", f.name, f.kind, answer)
	}
}

// Setting is one effective setting, for the log and the status page.
type Setting struct {
	Flag  string `json:"flag"`
	Value string `json:"value"`
}

// Settings returns the effective settings in the order of the help.
func (c Config) Settings() []Setting {
	var list []Setting
	for _, g := range groups() {
		for _, o := range g.options {
			if o.name != "help" && o.name != "version" {
				list = append(list, Setting{o.name, o.bind(&c).String()})
			}
		}
	}
	return list
}
