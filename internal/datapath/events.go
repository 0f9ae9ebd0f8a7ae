// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/podwall/podwall/internal/nft"
)

// events collect what happened in the kernel between two Applys.
type events struct {
	wake chan struct{} // holds at most one wake-up
	port uint32

	mu      sync.Mutex // guards pending
	pending nft.Notice
}

func (e *events) init(port uint32) {
	e.wake, e.port = make(chan struct{}, 1), port
}

// Changed receives after something in the kernel changed that Apply should
// look at.
func (e *events) Changed() <-chan struct{} { return e.wake }

func (e *events) note(n nft.Notice) {
	e.mu.Lock()
	e.pending.Table = e.pending.Table || n.Table
	e.pending.Others = e.pending.Others || n.Others
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *events) take() nft.Notice {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.pending
	e.pending = nft.Notice{}
	return n
}

// Watch listens to the kernel until ctx ends: nftables for changes by others,
// links and routes for new wiring.
func (d *Datapath) Watch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		own := func(port uint32) bool { return port == d.port }
		return nft.Monitor(ctx, own, d.note)
	})
	g.Go(func() error { return d.links.Watch(ctx, d.wake) })
	return g.Wait()
}
