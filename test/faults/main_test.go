// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// patience bounds the wait for something that must happen in the end. A passing run does not wait for it.
const patience = 2 * time.Minute

// TestMain runs the tests in a world of their own, against the built agent.
func TestMain(m *testing.M) { entry.Main(m, entry.BuiltAgent("../..")) }

// agentProgram is the agent under test.
func agentProgram() string { return os.Getenv(entry.AgentVariable) }

// check fails the test at once. It is for what must work before anything can be
// tested.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs skips a test that needs a program missing on this machine; in CI it fails.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: run `make prepare`", name)
		}
		t.Skipf("%s is missing: run `make prepare`", name)
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s", what, patience)
		}
	}
}
