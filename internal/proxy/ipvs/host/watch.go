// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"time"

	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/ipvs"
)

// lookEach is how often is looked whether connections that are awaited have ended, and whether another program
// has removed virtual services, of which the kernel does not tell.
const lookEach = 5 * time.Second

// Watch has an Apply look for the end of connections to destinations that get no new ones, and bring back
// virtual services that are gone, until ctx ends.
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

// gone reports whether virtual services of ours are missing.
func (p *Proxy) gone() bool {
	held := p.held.Load()
	if held == 0 {
		return false
	}
	found, err := p.counter.Services()
	if err != nil {
		p.log.Warn("the virtual services of IPVS cannot be counted", "err", err)
		return false
	}
	n := int64(0)
	for _, s := range found {
		if ipvs.Own(s) {
			n++
		}
	}
	return n < held && p.held.Load() == held // else an Apply removes them
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
