// SPDX-License-Identifier: Apache-2.0

// Package wake is how one goroutine tells another that there is something to do.
package wake

// Signal holds at most one wake-up, which may stand for many: whoever receives looks
// what there is to do. The zero value wakes nobody.
type Signal chan struct{}

// New returns a signal that is not set.
func New() Signal { return make(Signal, 1) }

// Set wakes the receiver, now or when it receives next. It never waits.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
