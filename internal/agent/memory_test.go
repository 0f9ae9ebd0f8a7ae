// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"runtime/debug"
	"testing"
)

func TestGarbageIsLimitedUnlessTheOperatorSaysOtherwise(t *testing.T) {
	const goes = 77 // what the process had
	for _, c := range []struct {
		name, variable string
		proxy          bool
		first, then    int
	}{
		{"nothing is said", "", false, garbageWhileListing, garbageWhileWatching},
		{"nothing is said, and Services are served", "", true, garbageWhileListing, garbageWhileServing},
		{"GOGC is said", "GOGC", false, goes, goes},
		{"GOMEMLIMIT is said", "GOMEMLIMIT", true, goes, goes},
	} {
		t.Run(c.name, func(t *testing.T) {
			was := debug.SetGCPercent(goes)
			defer debug.SetGCPercent(was)
			ready := thrift(func(name string) string {
				if name == c.variable {
					return "100"
				}
				return ""
			}, c.proxy)
			parts := 1
			if c.proxy {
				parts = 2
			}
			for range parts {
				if got := percent(); got != c.first {
					t.Errorf("at first garbage may be %d %%, want %d", got, c.first)
				}
				ready()
			}
			if got := percent(); got != c.then {
				t.Errorf("when the agent is ready garbage may be %d %%, want %d", got, c.then)
			}
		})
	}
}

// percent returns the setting.
func percent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}
