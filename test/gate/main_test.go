// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// TestMain runs the tests in a world of their own, against the agent that is
// built and a fresh podwall-gate, with the plugins of others.
func TestMain(m *testing.M) {
	entry.Main(m, entry.BuiltAgent("../.."), plugins, entry.Fresh(gateVariable, "../../cmd/podwall-gate"))
}

// plugins wants those that the tests chain with ours.
func plugins() (func() error, error) {
	var errs []error
	for _, name := range []string{"bridge", "ptp", "host-local"} {
		_, err := os.Stat(filepath.Join(cniBin(), name))
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// agentProgram is the agent that is tested.
func agentProgram() string { return os.Getenv(entry.AgentVariable) }

// cniBin is the directory of the plugins of others: PODWALL_CNI_BIN, else where
// `make cni` leaves them.
func cniBin() string {
	if v := os.Getenv("PODWALL_CNI_BIN"); v != "" {
		return v
	}
	return "../../bin/cni"
}

// gateVariable names the podwall-gate that is tested.
const gateVariable = "PODWALL_GATE"
