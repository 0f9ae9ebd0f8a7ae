// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/conntrack"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/links"
)

// arrivals end what an address took part in before a pod has it, where no gate
// does so: as soon as the pod network makes a route to one address, over an
// interface that may lead to pods. It runs beside the loop. Addresses of pods
// that are known, or are being programmed, are the loop's (clear): a connection
// that the pod's policies allow is never ended here.
type arrivals struct {
	closed bool // pods that nobody knows are; else there is nothing to do
	log    *slog.Logger
	conn   *conntrack.Conn // of the goroutine that runs it
	due    chan struct{}   // holds at most one wake-up of the goroutine
	// known is the program that the kernel gets or has.
	known atomic.Pointer[filter.Program]
	armed atomic.Bool // the rules are loaded

	mu      sync.Mutex // guards everything below
	fresh   map[netip.Addr]int
	since   time.Time // when the first of them came
	dropped bool
}

const (
	// maxFresh bounds the routes that wait to be looked at. A node has some hundred
	// pods.
	maxFresh = 1 << 14
	// gathering is the time for the routes of a pod's other addresses: the look is
	// then one.
	gathering = time.Millisecond
	// arrivalShare is the part of the time that looking may take in the long run.
	// It is more than the audit's, since meanwhile packets come through.
	arrivalShare = 0.5
)

func newArrivals(conn *conntrack.Conn, log *slog.Logger, closed bool) *arrivals {
	return &arrivals{closed: closed, log: log, conn: conn, due: make(chan struct{}, 1), fresh: map[netip.Addr]int{}}
}

// note takes a route that is new. It never waits.
func (a *arrivals) note(h links.Host) {
	if !a.closed {
		return
	}
	a.mu.Lock()
	if len(a.fresh) == 0 {
		a.since = time.Now()
	}
	if len(a.fresh) < maxFresh {
		a.fresh[h.Addr] = h.Link
	} else {
		a.dropped = true
	}
	a.mu.Unlock()
	a.wake()
}

// arm says that the rules are loaded: entries that are deleted are not made
// anew.
func (a *arrivals) arm() {
	if a.armed.CompareAndSwap(false, true) {
		a.wake()
	}
}

func (a *arrivals) wake() {
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// run deletes until ctx ends. However many routes come and go, it takes a share
// of the time only: those that come meanwhile are looked for together.
func (a *arrivals) run(ctx context.Context, open func(link int) bool) {
	b := newBudget(arrivalShare, time.Now())
	for pause := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return
		case <-a.due:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(gathering):
		}
		start := time.Now()
		err := a.turn(open)
		pause = b.spend(time.Since(start), time.Now())
		if err != nil {
			a.log.Warn("deleting connections from before a pod failed, trying again", "err", err)
			pause = max(pause, rewatch)
		}
	}
}

// take takes what waits, and returns the addresses that no known pod has.
func (a *arrivals) take(open func(link int) bool) (list []links.Host, since time.Time) {
	if !a.armed.Load() {
		return nil, since // arm wakes us
	}
	a.mu.Lock()
	fresh, since, dropped := a.fresh, a.since, a.dropped
	a.fresh, a.dropped = map[netip.Addr]int{}, false
	a.mu.Unlock()
	if dropped {
		a.log.Warn("more routes to single addresses than expected, connections from before a pod may last until the pod is known", "limit", maxFresh)
	}
	p := a.known.Load()
	for _, addr := range slices.SortedFunc(maps.Keys(fresh), netip.Addr.Compare) {
		if !owned(p, addr) && !open(fresh[addr]) {
			list = append(list, links.Host{Addr: addr, Link: fresh[addr]})
		}
	}
	return list, since
}

// giveBack has routes looked at once more, but those of which there is news.
func (a *arrivals) giveBack(list []links.Host) {
	for _, h := range list {
		a.mu.Lock()
		_, news := a.fresh[h.Addr]
		a.mu.Unlock()
		if !news {
			a.note(h)
		}
	}
}

// turn deletes the connections of what waits. Where it found some, or failed, the
// addresses wait once more.
func (a *arrivals) turn(open func(link int) bool) error {
	list, since := a.take(open)
	if len(list) == 0 {
		return nil
	}
	addrs := make([]netip.Addr, len(list))
	for i, h := range list {
		addrs[i] = h.Addr
	}
	deleted := 0
	node, err := links.LocalAddresses()
	if err == nil {
		deleted, err = forget(a.conn, addrs, node, func(addr netip.Addr) bool { return owned(a.known.Load(), addr) })
	}
	if deleted > 0 {
		a.log.Info("connections from before a pod cut", "count", deleted, "addresses", len(addrs), "after", time.Since(since))
	}
	if deleted > 0 || err != nil {
		a.giveBack(list)
	}
	return err
}
