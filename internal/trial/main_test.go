// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// agentVariable names a podwall-agent to test instead of a fresh build.
const agentVariable = "PODWALL_AGENT"

// TestMain runs the tests in a world of their own, with a fresh agent. Without
// the right to make a world they are skipped, except in CI.
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
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(agentVariable) != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "podwall-agent-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "podwall-agent")
	build := exec.Command("go", "build", "-o", program, "../../cmd/podwall-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the agent: %v\n%s", err, out)
		return 1
	}
	os.Setenv(agentVariable, program)
	return m.Run()
}
