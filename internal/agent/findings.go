// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"log/slog"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// findings says in the log what is found about users' objects: once when it is new,
// and how many are gone. Who writes the objects decides how many there are, so only a
// few are said in a period; /statusz has all of them.
type findings struct {
	last  []cluster.Diagnostic // sorted
	since time.Time            // when the period began
	said  int                  // in it
	left  int                  // not said in it
}

const (
	// findingsPeriod and maxSaid bound the lines about findings.
	findingsPeriod = time.Minute
	maxSaid        = 30
)

// say compares what holds now with what held before.
func (f *findings) say(now time.Time, list []cluster.Diagnostic, log *slog.Logger) {
	f.period(now, log)
	if slices.Equal(f.last, list) {
		return
	}
	before := make(map[cluster.Diagnostic]bool, len(f.last))
	for _, d := range f.last {
		before[d] = true
	}
	for _, d := range list {
		if !before[d] {
			f.one(d, log)
		}
		delete(before, d)
	}
	if len(before) > 0 && f.room() {
		log.Info("findings about objects are gone", "count", len(before), "left", len(list))
	}
	f.last = list
}

// one says one finding, if there is room in the period.
func (f *findings) one(d cluster.Diagnostic, log *slog.Logger) {
	if !f.room() {
		f.left++
		return
	}
	say := log.Info
	if d.Severity == cluster.Error {
		say = log.Warn
	}
	say("finding about an object", "severity", d.Severity.String(), "kind", d.Kind, "object", d.Object.String(),
		"field", d.Field, "finding", d.Message, "cure", d.Cure)
}

// room takes a line of the period, if there is one.
func (f *findings) room() bool {
	if f.said >= maxSaid {
		return false
	}
	f.said++
	return true
}

// period begins a new one when the last is over.
func (f *findings) period(now time.Time, log *slog.Logger) {
	if now.Sub(f.since) < findingsPeriod {
		return
	}
	if f.left > 0 {
		log.Warn("more findings about objects than are said in a minute; /statusz has those that hold", "count", f.left)
	}
	f.since, f.said, f.left = now, 0, 0
}
