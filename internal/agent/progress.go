// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import "sync"

// progress says which revision of the store the kernel enforces.
type progress struct {
	mu       sync.Mutex // guards everything below
	revision uint64
	some     bool          // a pass succeeded at all
	next     chan struct{} // closed when the next pass has succeeded
}

func newProgress() *progress { return &progress{next: make(chan struct{})} }

// reach notes that a pass with this revision was committed, and wakes those who
// wait.
func (p *progress) reach(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision, p.some = revision, true
	p.awake()
}

// wake lets those who wait ask again.
func (p *progress) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awake()
}

func (p *progress) awake() {
	close(p.next)
	p.next = make(chan struct{})
}

// has reports whether the kernel enforces at least that revision.
func (p *progress) has(revision uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.some && p.revision >= revision
}

// later returns a channel that is closed when it is worth asking again.
func (p *progress) later() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}
