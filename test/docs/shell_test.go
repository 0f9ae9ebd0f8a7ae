// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// commands returns the command lines of a text for the shell, each as its words. What
// only the shell knows, as a variable, stands there as "X".
func commands(where, text string) (list [][]string, err error) {
	file, err := syntax.NewParser().Parse(strings.NewReader(text), where)
	if err != nil {
		return nil, fmt.Errorf("not for a shell: %w", err)
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		var words []string
		for _, w := range call.Args {
			words = append(words, literal(w.Parts))
		}
		list = append(list, words)
		return true
	})
	return list, nil
}

// commands returns those of a block for the shell; others have none.
func (b block) commands() ([][]string, error) {
	switch b.language {
	case "sh":
		return commands(b.where, b.text)
	case "console":
		return commands(b.where, typed(b.text))
	}
	return nil, nil
}

func literal(parts []syntax.WordPart) string {
	var b strings.Builder
	for _, part := range parts {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(p.Value)
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			b.WriteString(literal(p.Parts))
		default:
			b.WriteString("X")
		}
	}
	return b.String()
}

// typed returns what is typed in the transcript of a terminal: the lines behind a prompt.
func typed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		for _, prompt := range []string{"$ ", "# "} {
			if host, command, ok := strings.Cut(line, prompt); ok && !strings.Contains(host, " ") {
				b.WriteString(command)
				break
			}
		}
	}
	return b.String()
}
