// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
)

// patience is how long a change may take to be enforced before the test gives
// up on it. Nobody waits for it when all is well.
const patience = 10 * time.Second

// root is the top of the repository, seen from this package.
const root = "../.."

// TestMain runs the tests in a world of their own. Without the right to make
// one they are skipped, except in CI.
func TestMain(m *testing.M) {
	status, again, err := netns.Enter()
	switch {
	case errors.Is(err, netns.ErrNoPrivilege) && os.Getenv("CI") != "true":
		fmt.Println("skipping:", err)
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case again:
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// agentProgram returns the program to test: PODWALL_AGENT, else what
// `make build` made.
func agentProgram(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("PODWALL_AGENT"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("reading PODWALL_AGENT: %v", err)
		}
		return path
	}
	path, err := filepath.Abs(filepath.Join(root, "bin", "podwall-agent"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	const cure = "podwall-agent is not built: run `make build`, or set PODWALL_AGENT"
	if os.Getenv("CI") == "true" {
		t.Fatal(cure)
	}
	t.Skip(cure)
	return ""
}
