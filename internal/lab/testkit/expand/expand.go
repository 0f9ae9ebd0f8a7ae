// SPDX-License-Identifier: Apache-2.0

// Package expand multiplies test scenarios. A scenario is a list of clusters
// that follow each other. Since what is enforced follows from the current
// cluster only, the same scenario can be told in many other ways: backwards,
// in small pieces, with events that come twice or in an unlucky order. Expand
// makes these ways, Check plays one of them and holds the incremental state
// against the recomputed one after every step.
//
// It owns the list of ways and never judges a verdict. It sends nothing to a
// kernel; package fakenft stands in for it.
package expand

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// Replay is one way to tell a scenario.
type Replay struct {
	Name string
	// Steps are applied one after another, each as one batch of a source.
	Steps []Step
	// Last is the cluster that the replay ends with.
	Last *cluster.Snapshot
}

// Step is a list of events that arrive together.
type Step []Event

// Event is what a source learns about one object.
type Event struct {
	Kind cluster.Kind
	// Gone is true if the object was deleted.
	Gone  bool
	apply func(*cluster.Tx)
}

// Expand returns all ways to tell the states, in a fixed order. The list of
// states must not be empty.
func Expand(states []*cluster.Snapshot) []Replay {
	last := states[len(states)-1]
	replays := []Replay{
		{Name: "as it was", Steps: walk(states), Last: last},
		{Name: "reversed", Steps: walk(reversed(states)), Last: states[0]},
		{Name: "squashed", Steps: []Step{slices.Concat(walk(states)...)}, Last: last},
		{Name: "with empty states between", Steps: walk(emptyBetween(states)), Last: last},
		{Name: "every event twice", Steps: duplicated(states), Last: last},
		{Name: "deleted and created again", Steps: recreated(states), Last: last},
		{Name: "listed anew", Steps: relisted(states), Last: last},
		{Name: "addresses swapped in between", Steps: swapped(states), Last: last},
		{Name: "addresses reused in between", Steps: reused(states), Last: last},
	}
	for _, o := range orders() {
		replays = append(replays, Replay{Name: "one object at a time, " + o.name, Steps: split(states, o), Last: last})
	}
	return replays
}

// walk leads from nothing through all states, each as one step.
func walk(states []*cluster.Snapshot) []Step {
	var steps []Step
	before := &cluster.Snapshot{}
	for _, now := range states {
		steps = append(steps, between(before, now))
		before = now
	}
	return steps
}

func reversed(states []*cluster.Snapshot) []*cluster.Snapshot {
	states = slices.Clone(states)
	slices.Reverse(states)
	return states
}

func emptyBetween(states []*cluster.Snapshot) []*cluster.Snapshot {
	var list []*cluster.Snapshot
	for i, s := range states {
		if i > 0 {
			list = append(list, &cluster.Snapshot{})
		}
		list = append(list, s)
	}
	return list
}

// duplicated sends each step with every event twice, and then once more as a
// step of its own.
func duplicated(states []*cluster.Snapshot) []Step {
	var steps []Step
	for _, s := range walk(states) {
		var twice Step
		for _, e := range s {
			twice = append(twice, e, e)
		}
		steps = append(steps, twice, s)
	}
	return steps
}

// relisted sends, after each state, all of it again in another order: what a
// source does that lost its connection.
func relisted(states []*cluster.Snapshot) []Step {
	var steps []Step
	for i, s := range walk(states) {
		steps = append(steps, s, relist(states[i]))
	}
	return steps
}

// order is an order in which the objects of a step arrive.
type order struct {
	name      string
	kinds     [3]cluster.Kind
	goneFirst bool
}

// orders covers every kind before and after every other, and deletions before
// and after the rest: a new pod may have its address before the old one is
// known to be gone.
func orders() []order {
	const n, p, x = cluster.Namespaces, cluster.Pods, cluster.Policies
	return []order{
		{"namespaces, pods, policies", [3]cluster.Kind{n, p, x}, true},
		{"namespaces, pods, policies, deletions last", [3]cluster.Kind{n, p, x}, false},
		{"pods, namespaces, policies", [3]cluster.Kind{p, n, x}, false},
		{"policies, pods, namespaces", [3]cluster.Kind{x, p, n}, true},
		{"pods, policies, namespaces, deletions last", [3]cluster.Kind{p, x, n}, false},
	}
}

func split(states []*cluster.Snapshot, o order) []Step {
	var steps []Step
	for _, s := range walk(states) {
		for _, e := range o.sort(s) {
			steps = append(steps, Step{e})
		}
	}
	return steps
}

func (o order) sort(s Step) Step {
	rank := func(e Event) int {
		r := slices.Index(o.kinds[:], e.Kind)
		if e.Gone != o.goneFirst {
			r += len(o.kinds)
		}
		return r
	}
	s = slices.Clone(s)
	slices.SortStableFunc(s, func(a, b Event) int { return rank(a) - rank(b) })
	return s
}
