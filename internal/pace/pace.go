// SPDX-License-Identifier: Apache-2.0

// Package pace says how long the agent's loops wait: after a turn or a scan of the connection table, so that a
// burst of changes costs few of them, and after a failure. It waits for nothing itself.
package pace

import "time"

// After a turn a loop rests, so that a burst costs few turns: rest times as long as the turn took, and no
// longer than longestRest. A change that comes after the rest is acted on at once.
const (
	rest        = 4
	longestRest = 20 * time.Millisecond
)

// Rest is the rest of a loop. The zero value is that of a loop that has not turned yet.
type Rest struct{ until time.Time }

// After begins the rest after a turn that began then.
func (r *Rest) After(start time.Time) {
	end := time.Now()
	r.until = end.Add(min(rest*end.Sub(start), longestRest))
}

// A scan of the kernel's connection table takes as long as that table is large, however little there is to find.
// Scans leave it scanRest times as long as the last one took, and usualScanRest at most; where that is less than a
// scan takes, as long as that: scans take half of the time at most.
const (
	scanRest      = 9
	usualScanRest = 60 * time.Millisecond
)

// AfterScan begins the rest after a scan of the connection table that began then.
func (r *Rest) AfterScan(start time.Time) {
	end := time.Now()
	took := end.Sub(start)
	r.until = end.Add(min(scanRest*took, max(usualScanRest, took)))
}

// Left returns how long the rest still is, 0 if it is over.
func (r *Rest) Left() time.Duration { return max(0, time.Until(r.until)) }

// The wait after a failed turn doubles from the first to the last.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Retry is how long a loop waits after failures in a row. The zero value is that of a loop without any.
type Retry struct{ next time.Duration }

// Failed returns how long to wait after one more failure.
func (r *Retry) Failed() time.Duration {
	wait := max(r.next, firstRetry)
	r.next = min(2*wait, lastRetry)
	return wait
}

// Succeeded ends the row.
func (r *Retry) Succeeded() { r.next = 0 }
