// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// patience is how long a change may take to be enforced before the test gives
// up on it. Nobody waits for it when all is well.
var patience = slowly(2 * time.Minute)

// slowly stretches a time for a machine that is PODWALL_SLOW times slower than
// usual, as an emulated one is.
func slowly(d time.Duration) time.Duration {
	factor, err := strconv.Atoi(os.Getenv("PODWALL_SLOW"))
	if err != nil || factor < 1 {
		return d
	}
	return d * time.Duration(factor)
}

// root is the top of the repository, seen from this package.
const root = "../.."

// TestMain runs the tests in a world of their own.
func TestMain(m *testing.M) { entry.Main(m) }

// agentProgram returns the program to test: PODWALL_AGENT, else what
// `make build` made.
func agentProgram(t *testing.T) string {
	t.Helper()
	return program(t, "podwall-agent", "PODWALL_AGENT", "make build")
}

// program returns the path of a program: what a variable of the environment
// says, else what a target of the Makefile puts into bin. One that is missing
// skips the test, or fails it in CI.
func program(t *testing.T, name, variable, target string) string {
	t.Helper()
	if path := os.Getenv(variable); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("reading %s: %v", variable, err)
		}
		return path
	}
	path, err := filepath.Abs(filepath.Join(root, "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	lacking(t, fmt.Sprintf("%s is not built: run `%s`, or set %s", name, target, variable))
	return ""
}

// lacking ends a test that needs what this machine has not: outside CI it is
// skipped.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
