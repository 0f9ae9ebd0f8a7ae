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

	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/wake"
)

// arrivals end what an address took part in before a pod has it: as soon as the
// pod network makes a route to one address, over an interface that may lead to
// pods, or when a pod is held for it (hold). It runs beside the loop. Of addresses
// of pods that are programmed it leaves everything: a connection that the pod's
// policies allow is never ended here.
type arrivals struct {
	closed  bool // pods that nobody knows are; else only what is held is looked for
	log     *slog.Logger
	conn    *conntrack.Conn // of the goroutine that runs it
	freed   func()          // is called when a pod need not wait any longer
	due     wake.Signal     // holds at most one wake-up of the goroutine
	running atomic.Bool     // there is that goroutine
	// known is the program that the kernel gets or has, without what is held.
	known atomic.Pointer[program.Program]
	armed atomic.Bool // the rules are loaded

	mu        sync.Mutex // guards everything below
	newcomers newcomers
	since     time.Time // when the first of them came
	dropped   bool
	count     int // deleted since somebody asked
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

func newArrivals(conn *conntrack.Conn, log *slog.Logger, closed bool, freed func()) *arrivals {
	return &arrivals{closed: closed, log: log, conn: conn, freed: freed, due: wake.New(), newcomers: newNewcomers(maxFresh)}
}

// note takes a route that is new. It never waits.
func (a *arrivals) note(h links.Host) {
	if !a.closed {
		return
	}
	a.mu.Lock()
	if len(a.newcomers.waiting) == 0 {
		a.since = time.Now()
	}
	a.dropped = !a.newcomers.add(h.Addr, h.Link, false) || a.dropped
	a.mu.Unlock()
	a.wake()
}

// clean reports whether somebody looks beside the loop, and the addresses from before
// which nothing is left, each with the interface over which its route went when that
// was found out: a pod with one can be programmed at once.
func (a *arrivals) clean() (looks bool, addrs map[netip.Addr]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running.Load(), maps.Clone(a.newcomers.clean)
}

// doubt has every address looked for again: the rules may have been away.
func (a *arrivals) doubt() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.newcomers.doubt()
}

// ended returns how many connections were deleted since the last call.
func (a *arrivals) ended() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, a.count = a.count, 0
	return n
}

// arm says that the rules are loaded: entries that are deleted are not made
// anew.
func (a *arrivals) arm() {
	if a.armed.CompareAndSwap(false, true) {
		a.wake()
	}
}

// disarm says that the rules are gone on purpose, so that nothing is to be deleted.
func (a *arrivals) disarm() {
	if a != nil {
		a.armed.Store(false)
	}
}

func (a *arrivals) wake() {
	a.due.Set()
}

// run deletes until ctx ends. However many routes come and go, it takes a share
// of the time only: those that come meanwhile are looked for together.
func (a *arrivals) run(ctx context.Context, open func(link int) bool) {
	a.running.Store(true)
	defer a.running.Store(false)
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

// take takes what waits, without the addresses that are programmed. Those of
// routes that lead elsewhere than to pods count only if a pod is held for them.
func (a *arrivals) take(open func(link int) bool) (list []netip.Addr, since time.Time) {
	if !a.armed.Load() {
		return nil, since // arm wakes us
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known.Load()
	list = a.newcomers.take(func(addr netip.Addr, w newcomer) bool {
		return !decide.Owns(p, addr) && (w.held || !open(w.link))
	})
	if a.dropped {
		a.log.Warn("more routes to single addresses than expected, pods may wait for the connection table to be looked through", "limit", maxFresh)
	}
	a.dropped = false
	slices.SortFunc(list, netip.Addr.Compare)
	return list, a.since
}

// turn deletes the connections of what waits. Where it found some, or failed, the
// addresses wait once more.
func (a *arrivals) turn(open func(link int) bool) error {
	addrs, since := a.take(open)
	if len(addrs) == 0 {
		return nil
	}
	deleted, found := 0, map[netip.Addr]int{}
	node, err := links.LocalAddresses()
	if err == nil {
		deleted, err = forget(a.conn, addrs, node, func(addr netip.Addr) bool { return decide.Owns(a.known.Load(), addr) }, found)
	}
	if deleted > 0 {
		a.log.Info("connections from before a pod cut", "count", deleted, "addresses", len(addrs), "after", time.Since(since))
	}
	a.mu.Lock()
	a.count += deleted
	freed := a.newcomers.done(found, err != nil)
	again := len(a.newcomers.waiting) > 0
	a.mu.Unlock()
	if freed {
		a.freed()
	}
	if again {
		a.wake()
	}
	return err
}

// hold has what waits looked for, once the commit has closed it.
func (a *arrivals) hold(h decide.Held) {
	a.mu.Lock()
	for _, addr := range h.Came {
		a.newcomers.listed(addr)
	}
	ready := false
	for _, addr := range h.Addrs {
		ready = a.newcomers.hold(addr, h.Link[addr]) || ready
	}
	a.mu.Unlock()
	if ready {
		a.freed()
	}
	if len(h.Addrs) > 0 {
		a.wake()
	}
}
