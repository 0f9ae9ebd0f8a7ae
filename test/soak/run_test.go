// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"fmt"

	"github.com/podwall/podwall/internal/lab/trial"
)

// run counts what was done on the kernel.
type run struct {
	tally
	packets packets
	again   int // steps that were asked twice
}

type packets trial.Totals

func (p *packets) add(t trial.Totals) {
	p.Sent, p.Arrived, p.Dropped = p.Sent+t.Sent, p.Arrived+t.Arrived, p.Dropped+t.Dropped
}

func (r *run) add(o *run) {
	r.tally.add(o.tally)
	r.packets.add(trial.Totals(o.packets))
	r.again += o.again
}

func (y *tally) add(o tally) {
	y.states, y.steps, y.allowed, y.denied = y.states+o.states, y.steps+o.steps, y.allowed+o.allowed, y.denied+o.denied
	y.byRule, y.ownNode, y.bothSides = y.byRule+o.byRule, y.ownNode+o.ownNode, y.bothSides+o.bothSides
	y.unobserved, y.diff = y.unobserved+o.unobserved, y.diff+o.diff
}

func (r *run) String() string {
	return fmt.Sprintf("%s; %d packets, %d arrived, %d counted as dropped; %d steps asked again",
		r.tally, r.packets.Sent, r.packets.Arrived, r.packets.Dropped, r.again)
}
