// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/podwall/podwall/internal/terminal"
)

// Every help fits a terminal, examples and all, and has the exit statuses.
func TestEveryHelpIsWhole(t *testing.T) {
	names := []string{""}
	for _, c := range newRoot("test", Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}).Commands() {
		names = append(names, c.Name())
	}
	for _, name := range names {
		status, out, said := commandLine(t, append(strings.Fields(name), "--help")...)
		if status != 0 || said != "" || !strings.Contains(out, "Exit status: 0") {
			t.Errorf("%s --help: exit status %d, stderr %q\n%s", name, status, said, out)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(line) - 1; n > terminal.Columns {
				t.Errorf("%s --help: %d columns: %s", name, n, line)
			}
		}
	}
}

func TestAWrongLineIsExplained(t *testing.T) {
	for line, want := range map[string]string{
		"frob":       `unknown command "frob"`,
		"frob -h":    `unknown command "frob"`,
		"help frob":  `unknown command "frob"`,
		"explian -h": "did you mean explain?",
		"can --frob": "unknown flag: --frob",
	} {
		status, out, said := commandLine(t, strings.Fields(line)...)
		said = strings.ReplaceAll(said, "\n  ", " ")
		if status != statusUsage || out != "" || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q; want %q", line, status, out, said, want)
		}
	}
}
