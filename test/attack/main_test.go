// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// TestMain runs the tests in a world of their own, against the built agent.
func TestMain(m *testing.M) { entry.Main(m, entry.BuiltAgent("../..")) }
