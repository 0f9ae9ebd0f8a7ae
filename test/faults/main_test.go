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

// patience is how long something may take that is right in the end. Nobody
// waits for it when all is well.
const patience = 20 * time.Second

// TestMain runs the tests in a world of their own, against the agent that is
// built.
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

// needs ends a test that needs a program which this machine has not: outside CI
// it is skipped.
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
