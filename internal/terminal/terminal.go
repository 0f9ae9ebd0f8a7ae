// SPDX-License-Identifier: Apache-2.0

// Package terminal formats answers for terminals: lines of bounded width. The commands for
// people use it. Widths are in characters.
package terminal

import (
	"strings"
	"unicode/utf8"
)

// Columns is how wide answers and help texts are: a terminal's usual width.
const Columns = 80

// Hang breaks a line, so that what follows is indented by two more than it.
func Hang(line string) string {
	return Wrap(line, line[:len(line)-len(strings.TrimLeft(line, " "))]+"  ")
}

// Wrap breaks a text at blanks so that no line is wider than Columns. Lines after the
// first one begin with the indent. A word that is wider stays whole.
func Wrap(text, indent string) string {
	var b strings.Builder
	width := 0
	for i, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width+1+n > Columns && strings.TrimSpace(word) != "":
			b.WriteString("\n" + indent)
			width = utf8.RuneCountInString(indent)
		default:
			b.WriteString(" ")
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}

// Fill breaks the lines of a text anew, so that they are as long as Columns allows. Paragraphs
// are kept apart by empty lines. One that has an indented line, or two blanks in a row, is a
// table or an example, and stays as it is.
func Fill(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") && !strings.Contains(p, "\n ") && !strings.Contains(p, "  ") {
			paragraphs[i] = Wrap(strings.ReplaceAll(p, "\n", " "), "")
		}
	}
	return strings.Join(paragraphs, "\n\n")
}
