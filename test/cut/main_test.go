// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// TestMain runs the tests in a world of their own. Without the right to make
// one, or without an agent, they are skipped, except in CI.
func TestMain(m *testing.M) {
	status, again, err := netns.Enter()
	if err == nil && !again {
		_, err = os.Stat(agentProgram())
	}
	switch {
	case (errors.Is(err, netns.ErrNoPrivilege) || os.IsNotExist(err)) && os.Getenv("CI") != "true":
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

// agentProgram is the agent that is tested: PODWALL_AGENT, else the one that
// `make build` leaves in bin.
func agentProgram() string {
	if p := os.Getenv("PODWALL_AGENT"); p != "" {
		return p
	}
	return "../../bin/podwall-agent"
}
