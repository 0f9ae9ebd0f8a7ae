// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"strings"
	"unicode/utf8"
)

// columns is how wide answers and help are: a terminal's usual width.
const columns = 80

// wrap breaks a text at blanks so that no line is wider than a terminal. Lines behind
// the first begin with the indent. A word that is wider stays whole.
func wrap(text, indent string) string {
	var b strings.Builder
	width := 0
	for i, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width+1+n > columns && strings.TrimSpace(word) != "":
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

// cut shortens a text in its middle.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 3 {
		return s
	}
	head := (width - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(width-1-head):])
}
