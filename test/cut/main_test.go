// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"os"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// TestMain runs the tests in a world of their own, against the built agent.
func TestMain(m *testing.M) { entry.Main(m, entry.BuiltAgent("../..")) }

// agentProgram is the agent that is tested.
func agentProgram() string { return os.Getenv(entry.AgentVariable) }
