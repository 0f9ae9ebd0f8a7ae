// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"os"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// The cast, see package stage. The attackers are near and far.
const (
	victim = stage.Victim
	peer   = stage.Peer
	jailed = stage.Jailed
	near   = stage.Near
	open   = stage.Open
	far    = stage.Far
	yonder = stage.Yonder
	node1  = stage.Node1
	node2  = stage.Node2
	out    = stage.Out
)

// world is a stage with the actions of attackers.
type world struct{ *stage.World }

// eachWiring runs a test on a routed and on a bridged world. A long run (PODWALL_SOAK) adds worlds wired by
// CNI plugins.
func eachWiring(t *testing.T, s stage.Setup, test func(t *testing.T, w *world)) {
	if soak.Long() {
		s.CNIBin = plugins(t)
	}
	stage.EachWiring(t, s, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}

// eachDatapath is eachWiring with nat chains and with filter chains.
func eachDatapath(t *testing.T, s stage.Setup, test func(t *testing.T, w *world)) {
	if soak.Long() {
		s.CNIBin = plugins(t)
	}
	stage.EachDatapath(t, s, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}

// everywhere is eachDatapath, always with the plugins: for tests that depend on the wiring.
func everywhere(t *testing.T, s stage.Setup, test func(t *testing.T, w *world)) {
	s.CNIBin = plugins(t)
	stage.EachDatapath(t, s, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}

// plugins is the directory of the CNI plugins; empty if they are not built, which fails in CI, and with
// "none", where starting them takes too long (test/vm).
func plugins(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("PODWALL_CNI_BIN")
	if dir == "none" {
		return ""
	}
	if dir == "" && os.Getenv("CI") == "true" {
		t.Fatal("the CNI plugins are not built: run `make cni`, and set PODWALL_CNI_BIN")
	}
	return dir
}
