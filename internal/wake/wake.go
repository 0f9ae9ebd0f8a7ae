// SPDX-License-Identifier: Apache-2.0

// Package wake lets one goroutine signal another that there is work. It owns no queue: signals that
// were not received yet are one.
package wake

// Signal holds at most one wake-up, which may stand for many: the receiver checks for itself what
// to do. Setting the zero value wakes no goroutine.
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
