// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"io"
	"os"
	"path/filepath"
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

// Where no server answers, another one may be meant, or files.
func TestAServerThatDoesNotAnswerHasACure(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], " +
		"clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{"matrix": "name a kubeconfig with --kubeconfig, or files with -f",
		"flows": "name a kubeconfig with --kubeconfig"} {
		status, _, said := commandLine(t, line, "--kubeconfig", kubeconfig)
		if said = strings.ReplaceAll(said, "\n  ", " "); status != statusUsage || !strings.Contains(said, "refused; "+want) {
			t.Errorf("%s: exit status %d, stderr %q; want %q", line, status, said, want)
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
		"can a":      "accepts 2 arg(s), received 1; the form is: kubectl-podwall can SRC",
		"lint -f":    "flag needs an argument",
	} {
		status, out, said := commandLine(t, strings.Fields(line)...)
		said = strings.ReplaceAll(said, "\n  ", " ")
		if status != statusUsage || out != "" || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q; want %q", line, status, out, said, want)
		}
	}
}
