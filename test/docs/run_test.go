// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// The README's commands for manifests of one's own are run as they stand, at the top of
// the repository, where make build was run. Only /tmp/try is another directory.
func TestTheCommandsOfTheReadmeRun(t *testing.T) {
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	for _, name := range []string{"examples", "deploy"} {
		target, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(scratch, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(scratch, "bin")); err != nil {
		t.Fatal(err)
	}
	script := strings.ReplaceAll(blockWith(t, "README.md", "podwall-lab run"), "/tmp/try", filepath.Join(scratch, "try"))
	if strings.Contains(script, "/tmp/try") || strings.Count(script, "podwall-lab") < 2 {
		t.Fatalf("not the block that this test is for:\n%s", script)
	}
	out, err := inNamespace(t, scratch, script)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	for _, part := range []string{"table inet podwall {", "every verdict is what the policies say"} {
		if !strings.Contains(out, part) {
			t.Errorf("it does not print %q:\n%s", part, out)
		}
	}
}

// blockWith returns the first block of a page in which the text stands.
func blockWith(t *testing.T, name, text string) string {
	t.Helper()
	blocks, _ := page{name, read(t, name)}.blocks()
	for _, b := range blocks {
		if strings.Contains(b.text, text) {
			return b.text
		}
	}
	t.Fatalf("no block of %s has %q", name, text)
	return ""
}

// inNamespace runs a script in a network namespace without a way out.
func inNamespace(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = dir
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		return "", err
	}
	err = cmd.Wait()
	return out.String(), err
}
