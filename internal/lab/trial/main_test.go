// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// agentVariable names the podwall-agent that is tested.
const agentVariable = entry.AgentVariable

// TestMain runs the tests in a world of their own, with a fresh agent.
func TestMain(m *testing.M) { entry.Main(m, entry.FreshAgent("../../../cmd/podwall-agent")) }
