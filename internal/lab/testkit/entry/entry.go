// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package entry begins a test program: it gives the tests a world of their own
// in which they may make network namespaces, and the programs that they start.
//
// It is called by TestMain and by nothing else. It decides when a whole test
// program is skipped: outside CI, for want of a privilege. What somebody has to
// build and has not is a failure, which says how. It runs no test and touches
// nothing of the machine but a directory for what it builds.
package entry

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/podwall/podwall/internal/lab/netns"
)

// AgentVariable names a podwall-agent to test instead of another one.
const AgentVariable = "PODWALL_AGENT"

// Tests are those of a package, a *testing.M.
type Tests interface{ Run() int }

// Need readies something that all tests of a package use, and returns how it is
// removed, or nil.
type Need func() (remove func() error, err error)

// noTests is what package testing prints when no test was run. go test looks for
// it, and prints [no tests to run] beside an "ok" that would hide a skip.
const noTests = "testing: warning: no tests to run"

// Main runs the tests with all needs met and ends the process with their
// status. Without the right to make network namespaces the tests are skipped,
// except in CI: go test says "ok" then, and [no tests to run].
func Main(m Tests, needs ...Need) {
	status, again, err := netns.Enter()
	if err == nil && !again {
		status, err = run(m, needs)
	}
	switch {
	case errors.Is(err, netns.ErrNoPrivilege) && os.Getenv("CI") != "true":
		fmt.Printf("skipping: %v\n%s\n", err, noTests)
		status = 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// Try runs the tests where they may make network namespaces if there is a right
// to, and otherwise where they are: it is for packages most of whose tests need
// none. Those that do say themselves what happens without. It ends the process
// with their status.
func Try(m Tests) {
	status, again, err := netns.Enter()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if !again {
		status = m.Run()
	}
	os.Exit(status)
}

func run(m Tests, needs []Need) (status int, err error) {
	for _, need := range needs {
		remove, err := need()
		if err != nil {
			return 1, err
		}
		if remove != nil {
			defer func() {
				if e := remove(); e != nil {
					fmt.Fprintln(os.Stderr, e)
					status = 1
				}
			}()
		}
	}
	return m.Run(), nil
}

// FreshAgent builds the agent from the source in dir, unless AgentVariable
// names one, and leaves its name in that variable.
func FreshAgent(dir string) Need { return Fresh(AgentVariable, dir) }

// Fresh builds the program whose source is in dir, unless the variable names
// one, and leaves its name in that variable.
func Fresh(variable, dir string) Need {
	return func() (func() error, error) {
		if os.Getenv(variable) != "" {
			return nil, nil
		}
		name := filepath.Base(dir)
		place, err := os.MkdirTemp("", name+"-")
		if err != nil {
			return nil, fmt.Errorf("making a directory for %s: %w", name, err)
		}
		remove := func() error { return os.RemoveAll(place) }
		program := filepath.Join(place, name)
		build := exec.Command("go", "build", "-o", program, dir)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("building %s: %w\n%s", name, err, out), remove())
		}
		return remove, os.Setenv(variable, program)
	}
}

// BuiltAgent wants the agent that `make build` has put into the directory bin
// below root, unless AgentVariable names one, and leaves its name in that
// variable.
func BuiltAgent(root string) Need {
	return func() (func() error, error) {
		program := os.Getenv(AgentVariable)
		if program == "" {
			program = filepath.Join(root, "bin", "podwall-agent")
		}
		if _, err := os.Stat(program); err != nil {
			return nil, fmt.Errorf("finding the agent (run `make build`, or set %s): %w", AgentVariable, err)
		}
		return nil, os.Setenv(AgentVariable, program)
	}
}
