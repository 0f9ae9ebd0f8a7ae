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

// arrivals deletes the conntrack entries of an address that predate its pod. Two events trigger it: the pod
// network adds a host route over an interface that may lead to pods, or a pod is held for its address
// (hold). It runs in its own goroutine. It skips the addresses of pods that are programmed, so it never
// deletes a connection that the pod's policies allow.
type arrivals struct {
	closed  bool // unknown pods are closed; if false, only held addresses are scanned for
	log     *slog.Logger
	conn    *conntrack.Conn // of the goroutine that runs it
	freed   func()          // called when a pod need not be held any longer
	due     wake.Signal     // holds at most one wake-up of the goroutine
	running atomic.Bool     // the goroutine runs
	// known is the program that the kernel has or is about to get, without the held pods.
	known atomic.Pointer[program.Program]
	armed atomic.Bool // the rules are loaded

	mu        sync.Mutex // guards everything below
	newcomers newcomers
	since     time.Time // when the first waiting address was added
	dropped   bool
	count     int // entries deleted since the last call of ended
}

const (
	// maxFresh bounds the routes that wait for a scan. A node has a few hundred pods.
	maxFresh = 1 << 14
	// gathering is how long to wait for the routes of a pod's other addresses, so that one scan serves them
	// all.
	gathering = time.Millisecond
	// arrivalShare is the share of time that these scans may take in the long run. It is larger than the
	// audit's, because packets of old connections pass until the scan.
	arrivalShare = 0.5
)

func newArrivals(conn *conntrack.Conn, log *slog.Logger, closed bool, freed func()) *arrivals {
	return &arrivals{
		closed:    closed,
		log:       log,
		conn:      conn,
		freed:     freed,
		due:       wake.New(),
		newcomers: newNewcomers(maxFresh),
	}
}

// note queues the address of a new route. It never blocks.
func (a *arrivals) note(h links.Host) {
	if !a.closed {
		return
	}
	a.mu.Lock()
	a.begin()
	a.dropped = !a.newcomers.add(h.Addr, h.Link, false) || a.dropped
	a.mu.Unlock()
	a.wake()
}

// begin notes when the first waiting address was added. a.mu must be held.
func (a *arrivals) begin() {
	if len(a.newcomers.waiting) == 0 {
		a.since = time.Now()
	}
}

// clean reports whether the goroutine runs, and returns the addresses that were scanned for. A pod with such
// an address can be programmed at once.
func (a *arrivals) clean() (looks bool, addrs map[netip.Addr]decide.Search) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running.Load(), maps.Clone(a.newcomers.clean)
}

// doubt invalidates all clean addresses: the rules may have been absent for a while.
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

// arm notes that the rules are loaded. From then on the kernel does not add deleted entries again.
func (a *arrivals) arm() {
	if a.armed.CompareAndSwap(false, true) {
		a.wake()
	}
}

// disarm notes that the rules were removed on purpose. Nothing is deleted until arm.
func (a *arrivals) disarm() {
	if a != nil {
		a.armed.Store(false)
	}
}

func (a *arrivals) wake() {
	a.due.Set()
}

// run deletes entries until ctx ends. It takes a bounded share of time at any rate of route changes: routes
// that are added during a scan share the next one.
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
			a.log.Warn("deleting connections older than a pod failed, retrying", "err", err)
			pause = max(pause, rewatch)
		}
	}
}

// take removes the waiting addresses from the queue, without programmed ones. An address whose
// route does not lead to pods counts only if a pod is held for it.
func (a *arrivals) take(open func(link int) bool) (list []netip.Addr, since time.Time) {
	if !a.armed.Load() {
		return nil, since // arm wakes the goroutine
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known.Load()
	list = a.newcomers.take(func(addr netip.Addr, w newcomer) bool {
		return !decide.Owns(p, addr) && (w.held || !open(w.link))
	})
	if a.dropped {
		a.log.Warn("too many new host routes, pods may wait for a scan of the connection table", "limit", maxFresh)
	}
	a.dropped = false
	slices.SortFunc(list, netip.Addr.Compare)
	return list, a.since
}

// turn deletes the connections of the waiting addresses. Addresses for which it found some, or all if it
// failed, wait for another scan.
func (a *arrivals) turn(open func(link int) bool) error {
	addrs, since := a.take(open)
	if len(addrs) == 0 {
		return nil
	}
	deleted, found := 0, map[netip.Addr]int{}
	node, err := links.LocalAddresses()
	if err == nil {
		known := func(addr netip.Addr) bool { return decide.Owns(a.known.Load(), addr) }
		deleted, err = forget(a.conn, addrs, node, known, found)
	}
	if deleted > 0 {
		a.log.Info("cut connections older than a pod", "count", deleted, "addresses", len(addrs),
			"after", time.Since(since))
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

// hold queues the held addresses for a scan, after the commit that closed them.
func (a *arrivals) hold(h decide.Held) {
	a.mu.Lock()
	a.begin()
	for _, addr := range h.Added {
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
