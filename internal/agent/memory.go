// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"runtime/debug"
	"sync/atomic"
)

// How much garbage there may be before it is collected, in percent of what is
// alive. Go's own is 100. The agent needs most memory while the first lists come
// in and the first programs are written: then memory counts more than processor
// time. Later there are fewer bytes alive, so that Go's own figure reaches about
// the same height, and changes meet fewer collections; see docs/performance.md.
// With Services more stays alive: with 10,000 of them Go's own figure took 88 MiB,
// half of it 70.
const (
	garbageWhileListing  = 25
	garbageWhileWatching = 100
	garbageWhileServing  = 50
)

// thrift limits the garbage until each of the agent's parts has called ready once,
// and then less, unless the operator's environment says what to do. The parts are
// policies and, if it runs, the service proxy. The collector belongs to the process.
func thrift(getenv func(string) string, proxy bool) (ready func()) {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	debug.SetGCPercent(garbageWhileListing)
	parts, then := int64(1), garbageWhileWatching
	if proxy {
		parts, then = 2, garbageWhileServing
	}
	var done atomic.Int64
	return func() {
		if done.Add(1) == parts {
			debug.SetGCPercent(then)
		}
	}
}
