// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import "github.com/podwall/podwall/internal/terminal"

const columns = terminal.Columns

func wrap(text, indent string) string { return terminal.Wrap(text, indent) }

// cut shortens a text in its middle.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 3 {
		return s
	}
	head := (width - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(width-1-head):])
}
