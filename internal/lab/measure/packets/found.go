// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/meter"
)

// found are the rows against the node as the agent finds it, where it must
// switch on something that was off, and packets that are denied.
func found() []group {
	onBridge := setting("podwall", usual()).on(lab.Bridge)
	onBridge.modes = []mode{{name: "bridge passes its packets unseen", unfiltered: true},
		{name: "bridge shows its packets, no agent"}, {name: "podwall", awake: true}}
	noNAT := setting("podwall", usual())
	noNAT.plan.found, noNAT.modes[0].name = tracked, "connections tracked, nobody translates addresses"
	denied := measurement{meter.Unanswered, "packet of a flood that is denied", "ns", "closed", 10_000, 3}
	deny := setting("denied by podwall", usual())
	deny.modes[0].name = "delivered, no agent"
	return []group{
		{name: "found", title: "bridge as found", measurements: []measurement{established(), first()},
			subjects: unjudged(onBridge)},
		{name: "found", title: "no NAT as found", measurements: everything(), subjects: unjudged(noNAT)},
		{name: "found", title: "IPv6 as found", measurements: everything(), subjects: unjudged(untracked()...)},
		{name: "found", title: "deny", measurements: []measurement{denied}, subjects: unjudged(deny)},
	}
}

// untracked compares nodes that know nothing of connections with nodes whose
// agent needs to know. Tracking stays on when a table is dormant, so these are
// different nodes; other ones of the first kind show what that makes out.
func untracked() []subject {
	six := usual()
	six.v6 = true
	asFound := subject{name: "bare", plan: plan{wiring: lab.Routed, shape: six, found: bare},
		modes: []mode{{name: "nothing tracks connections"}}}
	others := asFound
	others.sharedBase, others.modes = true, []mode{{name: "the same on other nodes"}}
	agents := setting("podwall", six)
	agents.plan.found, agents.sharedBase = bare, true
	agents.modes[0].name = "connections tracked, no agent"
	return []subject{asFound, others, agents}
}

// unjudged are subjects without bars, the base measured twice.
func unjudged(list ...subject) []subject {
	for i := range list {
		list[i].unbarred = true
	}
	return twice(list)
}
