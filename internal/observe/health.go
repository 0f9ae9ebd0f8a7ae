// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"strings"
	"time"
)

// stall returns for how long the loop has been silent when that is too long,
// else 0. The limit is generous on purpose: an agent that is killed while the
// kernel is slow starts over and makes it slower.
func (o *Observer) stall(now time.Time) time.Duration {
	silent := now.Sub(o.beat)
	if silent <= max(2*o.info.Period, time.Minute) {
		return 0
	}
	return silent.Round(time.Second)
}

// healthy reports whether the loop turns. It says nothing about enforcement
// (invariant 12): what a restart does not cure is no reason to be restarted.
func (o *Observer) healthy() (ok bool, why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if silent := o.stall(time.Now()); silent > 0 {
		return false, fmt.Sprintf("the loop has not turned for %s", silent)
	}
	return true, ""
}

// Stalled says why the loop does not turn; empty if it does.
func (o *Observer) Stalled() string {
	_, why := o.healthy()
	return why
}

func (o *Observer) isReady() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.notReady(time.Now())) == 0
}

// notReady returns why the node is not known to enforce everything.
func (o *Observer) notReady(now time.Time) []string {
	var reasons []string
	switch {
	case len(o.missing) > 0:
		reasons = append(reasons, "waiting for the first complete list of "+o.missingNames()+o.causes(now))
	case o.pending == nil && !o.enforced:
		reasons = append(reasons, "nothing has been applied to the kernel yet")
	}
	if o.pending != nil {
		reasons = append(reasons, "the last pass failed: "+o.pending.Error())
	}
	if silent := o.stall(now); silent > 0 {
		reasons = append(reasons, fmt.Sprintf("the loop has not turned for %s", silent))
	}
	reasons = append(reasons, o.services.notServed()...)
	for _, p := range o.sortedProblems() {
		if p.Blocking {
			reasons = append(reasons, p.Subject+": "+p.Text)
		}
	}
	return reasons
}

func (o *Observer) missingNames() string {
	names := make([]string, len(o.missing))
	for i, k := range o.missing {
		names[i] = k.String()
	}
	return strings.Join(names, ", ")
}
