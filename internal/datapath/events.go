// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/wake"
)

// events collect changes of the kernel between two Applys.
type events struct {
	wake   wake.Signal // holds at most one wake-up
	denied wake.Signal // the same for denied connections
	// The netlink ports of our nftables connection and of the one before: a notification of our last change
	// may arrive after we reconnected.
	ports, before atomic.Pointer[nft.Ports]

	mu      sync.Mutex // guards the fields below
	pending nft.Notice
	soon    *time.Timer // set while a survey of other programs' rules is due
	look    *time.Timer // set while a check for missing objects is due
}

func (e *events) init(ports nft.Ports) {
	e.wake, e.denied = wake.New(), wake.New()
	e.ports.Store(&ports)
}

// own reports whether that netlink port is one of ours.
func (e *events) own(port uint32) bool {
	now, before := e.ports.Load(), e.before.Load()
	return now.Has(port) || before != nil && before.Has(port)
}

// Changed receives after a change of the kernel that Apply has to process.
func (e *events) Changed() <-chan struct{} { return e.wake }

// Denied receives when Cut has work: a scan found denied connections, or a refused packet need not be
// refused any longer.
func (e *events) Denied() <-chan struct{} { return e.denied }

// soonest is how often to survey the rules of other programs, which a service proxy may change many times a
// second.
const soonest = time.Second

func (e *events) note(n nft.Notice) {
	e.mu.Lock()
	e.pending.Table = e.pending.Table || n.Table
	e.pending.Hooks = e.pending.Hooks || n.Hooks
	e.pending.Lost = e.pending.Lost || n.Lost
	if n.Rules && e.soon == nil {
		e.soon = time.AfterFunc(soonest, func() { e.note(nft.Notice{Hooks: true}) })
	}
	e.mu.Unlock()
	if !n.Table && !n.Hooks && !n.Lost {
		return
	}
	e.awake()
}

// awake requests an Apply.
func (e *events) awake() {
	e.wake.Set()
}

// lookAgain requests an Apply after some time, or none if after is 0. It replaces the previous request.
func (e *events) lookAgain(after time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.look != nil {
		e.look.Stop()
		e.look = nil
	}
	if after > 0 {
		e.look = time.AfterFunc(after, e.awake)
	}
}

// othersChanged reports whether another program may have changed our table since the last Apply.
func (e *events) othersChanged() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pending.Table || e.pending.Lost
}

func (e *events) take() nft.Notice {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.pending
	e.pending = nft.Notice{}
	if n.Hooks && e.soon != nil {
		e.soon.Stop()
		e.soon = nil
	}
	return n
}

// rewatch is the pause before a failed watch is restarted.
const rewatch = time.Second

// again runs a watch until ctx ends.
func (d *Datapath) again(ctx context.Context, watch func() error) {
	for ctx.Err() == nil {
		if err := watch(); err != nil && ctx.Err() == nil {
			d.log.Error("watching the kernel failed, restarting", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rewatch):
		}
		d.note(nft.Notice{Table: true, Hooks: true})
	}
}

// Watch listens to the kernel until ctx ends: nftables for changes by other programs, links and routes for
// new wiring. A failed watch is restarted, and all that it may have missed counts as changed.
func (d *Datapath) Watch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		d.again(ctx, func() error { return nft.Monitor(ctx, d.own, ruleset.Ours, d.note) })
		return nil
	})
	appeared := func(links.Host) {}
	if d.cuts.conn != nil {
		appeared = d.cuts.arrivals.note
	}
	g.Go(func() error {
		d.again(ctx, func() error { return d.links.Watch(ctx, d.wake, appeared) })
		return nil
	})
	if d.cuts.conn != nil {
		g.Go(func() error {
			d.cuts.arrivals.run(ctx, d.links.LeadsElsewhere)
			return nil
		})
		g.Go(func() error {
			d.cuts.audit.run(ctx)
			return nil
		})
	}
	return g.Wait()
}
