// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// TestMain runs the tests in a world of their own, with a fresh podwall-gate.
// Without the right to make a world, or without the programs of others, they
// are skipped, except in CI.
func TestMain(m *testing.M) {
	status, again, err := netns.Enter()
	if err == nil && !again {
		err = missing(agentProgram(), filepath.Join(cniBin(), "bridge"), filepath.Join(cniBin(), "ptp"), filepath.Join(cniBin(), "host-local"))
	}
	switch {
	case (errors.Is(err, netns.ErrNoPrivilege) || errors.Is(err, os.ErrNotExist)) && os.Getenv("CI") != "true":
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

func missing(programs ...string) error {
	var errs []error
	for _, p := range programs {
		_, err := os.Stat(p)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// agentProgram is the agent: PODWALL_AGENT, else the one that `make build`
// leaves in bin.
func agentProgram() string { return fromEnvironment("PODWALL_AGENT", "../../bin/podwall-agent") }

// cniBin is the directory of the plugins of others: PODWALL_CNI_BIN, else where
// `make cni` leaves them.
func cniBin() string { return fromEnvironment("PODWALL_CNI_BIN", "../../bin/cni") }

func fromEnvironment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// gateVariable names the directory of a podwall-gate for the tests.
const gateVariable = "PODWALL_GATE_BIN"

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podwall-gate-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "podwall-gate"), "../../cmd/podwall-gate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building podwall-gate: %v\n%s", err, out)
		return 1
	}
	os.Setenv(gateVariable, dir)
	return m.Run()
}
