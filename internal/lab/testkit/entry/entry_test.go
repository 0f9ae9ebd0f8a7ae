// SPDX-License-Identifier: Apache-2.0

//go:build linux

package entry_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A package whose tests cannot be run for want of a program does not look like one
// that passed.
func TestAMissingProgramIsAFailure(t *testing.T) {
	source := "package entry_test\n\nimport (\n\t\"testing\"\n\n\t\"github.com/podwall/podwall/internal/lab/testkit/entry\"\n)\n\n" +
		"func TestMain(m *testing.M) { entry.Main(m, entry.BuiltAgent(\"nowhere\")) }\n\nfunc TestNothing(*testing.T) {}\n"
	dir, err := os.MkdirTemp(".", "testdata-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "main_test.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "./"+dir)
	cmd.Env = append(os.Environ(), "CI=", "PODWALL_AGENT=")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "run `make build`") {
		t.Errorf("without a built agent: %v\n%s", err, out)
	}
}
