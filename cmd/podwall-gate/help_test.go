// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/podwall/podwall/internal/terminal"
)

// Help goes to standard output, fits a terminal and has the exit statuses.
func TestEveryHelpIsWhole(t *testing.T) {
	for _, line := range []string{"--help", "install -h", "uninstall --help", "status -h", "list -h", "nri -h",
		"serve -h", "connect -h"} {
		var out, said strings.Builder
		if status := run(t.Context(), strings.Fields(line), &out, &said); status != 0 || said.Len() > 0 {
			t.Errorf("%s: exit status %d, stderr %q", line, status, said.String())
		}
		if !strings.Contains(out.String(), "Exit status: 0") {
			t.Errorf("%s: no exit statuses:\n%s", line, out.String())
		}
		for text := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(text) - 1; n > terminal.Columns {
				t.Errorf("%s: %d columns: %s", line, n, text)
			}
		}
	}
}

func TestAWrongLineIsExplained(t *testing.T) {
	for line, want := range map[string]string{
		"install --frob":   "podwall-gate install --help lists the flags",
		"install extra":    `unexpected argument "extra"`,
		"serve --socket=x": "podwall-gate serve --help lists the flags",
		"frob -h":          `unknown command "frob"`,
	} {
		var out, said strings.Builder
		if status := run(t.Context(), strings.Fields(line), &out, &said); status != 2 || out.Len() > 0 ||
			!strings.Contains(said.String(), want) {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q", line, status, out.String(), said.String())
		}
	}
}
