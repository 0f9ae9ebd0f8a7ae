// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"slices"
	"time"

	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/ipvs"
)

// lookEach is how often is looked whether connections that are awaited have ended, and whether another program
// has removed virtual services, ours or its own, of which the kernel does not tell.
const lookEach = 5 * time.Second

// Watch has an Apply look for the end of connections to destinations that get no new ones, and bring back
// virtual services that are gone, and those whose place another program has left, until ctx ends.
func (p *Proxy) Watch(ctx context.Context) error {
	beat := time.NewTicker(lookEach)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			p.look()
		}
	}
}

// look wakes the loop if an Apply has something to do.
func (p *Proxy) look() {
	gone := p.gone()
	if gone {
		p.lost.Store(true)
	}
	if gone || p.drains.Load() > 0 {
		p.tables.Wake()
	}
}

// gone reports whether virtual services are missing: some of ours, or one of another program that kept one of
// ours away.
func (p *Proxy) gone() bool {
	held, blocked := p.held.Load(), p.blocked.Load()
	if held == 0 && (blocked == nil || len(*blocked) == 0) {
		return false
	}
	found, err := p.counter.Services()
	if err != nil {
		p.log.Warn("the virtual services of IPVS cannot be counted", "err", err)
		return false
	}
	n, others := int64(0), map[kernel.ID]bool{}
	for _, s := range found {
		if ipvs.Own(s) {
			n++
		} else {
			others[s.ID] = true
		}
	}
	free := blocked != nil && slices.ContainsFunc(*blocked, func(id kernel.ID) bool { return !others[id] })
	// Else an Apply removes them, or reads what is taken.
	return (n < held || free) && p.held.Load() == held && p.blocked.Load() == blocked
}

// owned counts our virtual services.
func owned(actual map[kernel.ID]kernel.Listed) (n int64) {
	for _, s := range actual {
		if ipvs.Own(s.Service) {
			n++
		}
	}
	return n
}
