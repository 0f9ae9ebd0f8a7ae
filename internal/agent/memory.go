// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import "runtime/debug"

// How much garbage there may be before it is collected, in percent of what is
// alive. Go's own is 100. The agent needs most memory while the first list comes
// in and the first program is written: then memory counts more than processor
// time. Later there are fewer bytes alive, so that Go's own figure reaches about
// the same height, and changes meet fewer collections; see docs/performance.md.
const (
	garbageWhileListing  = 25
	garbageWhileWatching = 100
)

// thrift limits the garbage until the agent is ready, and then less, unless the
// operator's environment says what to do. The collector belongs to the process.
func thrift(getenv func(string) string) (ready func()) {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	debug.SetGCPercent(garbageWhileListing)
	return func() { debug.SetGCPercent(garbageWhileWatching) }
}
