// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"

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

// world is a stage with what only attackers do.
type world struct{ *stage.World }

// eachWiring runs a test on a routed and on a bridged world.
func eachWiring(t *testing.T, s stage.Setup, test func(t *testing.T, w *world)) {
	stage.EachWiring(t, s, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}

// eachDatapath is eachWiring with nat chains and with filter chains.
func eachDatapath(t *testing.T, s stage.Setup, test func(t *testing.T, w *world)) {
	stage.EachDatapath(t, s, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}
