// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden answers anew")

// invented is said of testdata/shop.yaml each time.
const invented = "Deployment shop/web: invented the pods web-0, web-1 instead of 3, which are all\n  alike\n"

// commandLine runs a command line and returns its exit status and what it printed.
func commandLine(t *testing.T, args ...string) (status int, out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	status = Run(t.Context(), "test", args, Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return status, o.String(), e.String()
}

// Each block of these files is a command line on their manifests, what it prints and,
// where it is not 0, its exit status.
func TestGoldenAnswers(t *testing.T) {
	for path, manifests := range map[string]string{"testdata/answers.txt": "testdata/shop.yaml",
		"testdata/tables.txt": "testdata/shop.yaml", "testdata/edge.txt": "testdata/edge.yaml",
		"testdata/served.txt": "testdata/served.yaml",
		"testdata/audit.txt":  "testdata/audit.yaml", "testdata/auditns.txt": "testdata/auditns.yaml"} {
		t.Run(path, func(t *testing.T) { goldenAnswers(t, path, manifests) })
	}
}

func goldenAnswers(t *testing.T, path, manifests string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		args, found := strings.CutPrefix(line, "$ kubectl podwall ")
		if !found {
			continue
		}
		status, out, said := commandLine(t, append(strings.Fields(args), "-f", manifests)...)
		fmt.Fprintf(&got, "%s\n%s", line, out)
		if said = strings.ReplaceAll(said, invented, ""); said != "" {
			fmt.Fprintf(&got, "stderr:\n%s", said)
		}
		if status != 0 {
			fmt.Fprintf(&got, "exit status %d\n", status)
		}
		got.WriteString("\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), got.String()); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(got.String()) {
		inTable := strings.Contains(line, "comment \"") || strings.HasPrefix(line, "Its addresses")
		if n := len([]rune(line)) - 1; n > 80 && !inTable && !strings.HasPrefix(line, "$ ") && !strings.Contains(line,
			"spec.") && !strings.Contains(line, "change:") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// The page for users shows what the program prints.
func TestThePageShowsRealAnswers(t *testing.T) {
	page, err := os.ReadFile("../../docs/kubectl.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	pages := strings.NewReplacer(" shop.yaml", " testdata/shop.yaml", " mended.yaml", " testdata/mended.yaml",
		" audited.yaml", " testdata/audited.yaml", " seen.json", " testdata/seen.json")
	for _, block := range strings.Split(string(page), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		line, want, _ := strings.Cut(block, "\n")
		args, ok := strings.CutPrefix(line, "$ kubectl podwall ")
		if !ok || strings.Contains(args, " | ") { // the rest of a pipe is not ours
			continue
		}
		shown++
		status, out, _ := commandLine(t, strings.Fields(pages.Replace(args))...)
		if status != 0 {
			said := fmt.Sprintf("exit status %d\n", status)
			if want, ok = strings.CutSuffix(want, said); !ok {
				t.Errorf("%s: %s", line, said)
			}
		}
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s (-page +answer):\n%s", line, diff)
		}
	}
	if shown < 2 {
		t.Errorf("the page shows %d answers", shown)
	}
}
