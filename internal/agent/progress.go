// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"sync"

	"github.com/podwall/podwall/internal/cluster"
)

// progress says which revision of the store the kernel enforces.
type progress struct {
	mu       sync.Mutex // guards everything below
	revision uint64
	some     bool                 // a pass succeeded at all
	held     map[cluster.Key]bool // pods that wait, whatever the revision
	next     chan struct{}        // closed when the next pass has succeeded
}

func newProgress() *progress { return &progress{next: make(chan struct{})} }

// reach notes that a pass with this revision was committed, without the pods that
// are held, and wakes those who wait.
func (p *progress) reach(revision uint64, held map[cluster.Key]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision, p.some, p.held = revision, true, held
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

// has reports whether the kernel enforces at least that revision of a pod.
func (p *progress) has(pod cluster.Key, revision uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.some && p.revision >= revision && !p.held[pod]
}

// later returns a channel that is closed when it is worth asking again.
func (p *progress) later() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}
