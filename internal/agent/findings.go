// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/source/manifest"
)

// findings says in the log what is found about users' objects: once when it is new,
// and how many are gone. Who writes the objects decides how many there are, so a few
// are said in a period, of one namespace and in all; the others wait for the next one.
// What is found about files, the source says itself. What is said about a policy its author
// is told, too.
type findings struct {
	last  []cluster.Diagnostic // what the last pass had, sorted
	known map[cluster.Diagnostic]bool
	since time.Time      // when the period began
	said  int            // in it
	by    map[string]int // in it, by namespace
	left  int            // that wait
	// announce reports all findings about a policy to its author; nil if the source cannot.
	announce func(policy cluster.Key, findings []cluster.Diagnostic)
	// amend corrects a report that is not sent yet, after some findings are gone.
	amend func(policy cluster.Key, findings []cluster.Diagnostic)
}

const (
	// findingsPeriod and maxSaid bound the lines about findings.
	findingsPeriod = time.Minute
	maxSaid        = 30
	maxSaidOfOne   = 10 // namespace
)

// say compares what holds now with what was said before.
func (f *findings) say(now time.Time, list []cluster.Diagnostic, log *slog.Logger) {
	f.period(now, log)
	if slices.Equal(f.last, list) && f.left == 0 {
		return
	}
	before := f.last
	f.last, f.left = list, 0
	holds := make(map[cluster.Diagnostic]bool, len(list))
	fresh := map[cluster.Key]bool{}
	for _, d := range list {
		if d.Kind == manifest.KindFile {
			continue
		}
		if holds[d] = f.known[d]; !holds[d] {
			holds[d] = f.one(d, log)
			fresh[d.Object] = fresh[d.Object] || holds[d] && d.Kind == convert.KindPolicy
		}
	}
	f.tell(list, fresh, lost(before, holds))
	gone := 0
	for d := range f.known {
		if _, still := holds[d]; !still {
			gone++
		}
	}
	if gone > 0 && f.room("") {
		log.Info("findings about objects are gone", "count", gone, "left", len(list))
	}
	maps.DeleteFunc(holds, func(_ cluster.Diagnostic, said bool) bool { return !said })
	f.known = holds
}

// lost returns the policies about which something is not found any more.
func lost(before []cluster.Diagnostic, holds map[cluster.Diagnostic]bool) map[cluster.Key]bool {
	policies := map[cluster.Key]bool{}
	for _, d := range before {
		if _, still := holds[d]; !still && d.Kind == convert.KindPolicy {
			policies[d.Object] = true
		}
	}
	return policies
}

// tell tells the authors of policies with something fresh what is found about them. Where
// something is lost, what they were not told yet is corrected.
func (f *findings) tell(list []cluster.Diagnostic, fresh, lost map[cluster.Key]bool) {
	if f.announce == nil {
		return
	}
	found := map[cluster.Key][]cluster.Diagnostic{}
	for _, d := range list {
		if d.Kind == convert.KindPolicy && (fresh[d.Object] || lost[d.Object]) {
			found[d.Object] = append(found[d.Object], d)
		}
	}
	for policy, all := range found {
		if fresh[policy] {
			f.announce(policy, all)
		}
	}
	for policy := range lost {
		if !fresh[policy] {
			f.amend(policy, found[policy])
		}
	}
}

// one says one finding, if there is room in the period, and reports whether it did.
func (f *findings) one(d cluster.Diagnostic, log *slog.Logger) bool {
	if !f.room(d.Object.Namespace) {
		f.left++
		return false
	}
	say := log.Info
	if d.Severity == cluster.Error {
		say = log.Warn
	}
	say("finding about an object", "severity", d.Severity.String(), "kind", d.Kind, "object", d.Object.String(),
		"field", d.Field, "finding", d.Message, "cure", d.Cure)
	return true
}

// room takes a line of the period, if there is one for the namespace.
func (f *findings) room(namespace string) bool {
	if f.said >= maxSaid || f.by[namespace] >= maxSaidOfOne {
		return false
	}
	f.said++
	f.by[namespace]++
	return true
}

// period begins a new one when the last is over.
func (f *findings) period(now time.Time, log *slog.Logger) {
	if now.Sub(f.since) < findingsPeriod {
		return
	}
	if f.left > 0 {
		log.Warn("more findings about objects than are said in a minute, going on with them; see /statusz",
			"count", f.left)
	}
	f.since, f.said, f.by = now, 0, map[string]int{}
}
