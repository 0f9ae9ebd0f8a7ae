// SPDX-License-Identifier: Apache-2.0

// Package feed says how a source of objects stands: connected or not, since when,
// and why. Sources fill it in, package agent decides what is a problem, package
// observe shows it.
package feed

import "time"

// Feed is how a source stands with one kind of object, or with all it reads.
type Feed struct {
	Kind string // plural resource name, or "manifests"
	// Connected is true while changes arrive as they happen.
	Connected bool
	// Seldom is true while it is not connected, and a part of what is needed is read
	// now and then.
	Seldom bool
	// Since is when Connected became what it is.
	Since time.Time
	// Heard is when the source last learned something: a list, a watch that was
	// opened, an event, a bookmark. It is zero before the first.
	Heard time.Time
	// Err says why it is not connected, Cure what helps. Both may be empty.
	Err, Cure string
}
