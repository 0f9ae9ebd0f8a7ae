// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// destination is the destination and table of a route.
type destination struct {
	table uint32
	dst   netip.Prefix
}

// gateways tracks which interfaces have a route through a gateway. All routes are read once per
// subscription; later an interface is read again only if the route that proved its gateway was deleted.
type gateways struct {
	mu sync.Mutex
	// conn is the subscription; without it nothing is cached.
	conn     *netlink.Conn
	interest *interest     // the needs of the last Find
	filtered *interest     // the interest that the filter of conn implements
	known    bool          // all routes were read since the subscription
	reading  chan struct{} // closed when begin has read the routes; nil if it does not read
	// by holds, for each interface with a gateway, one route that proves it: the one to the largest
	// network, which is the last to change.
	by    map[int]destination
	doubt map[int]bool // interfaces to read again
	counts
}

// counts measure the work that routes of other programs caused. Tests limit it.
type counts struct {
	heard  int // notifications that passed the filter
	listed int // routes read
	asked  int // route dumps
	wakes  int
}

// note processes a route through gateways, and reports whether that changes where an interface leads, or
// may do so.
func (g *gateways) note(r *route, gone, replaced bool) (changed bool) {
	at := destination{r.table, r.dst}
	if gone || replaced {
		for link, reason := range g.by {
			if reason == at && !g.interest.isDull(link) {
				g.doubt[link], changed = true, true
			}
		}
	}
	if gone {
		return changed
	}
	r.outBy(func(link int) {
		reason, leads := g.by[link]
		if !leads || r.dst.Bits() < reason.dst.Bits() {
			g.by[link] = at
			changed = changed || !leads && !g.interest.isDull(link)
		}
	})
	return changed
}

func (i *interest) isDull(link int) bool { return i != nil && i.dull[link] }

// shaken notes that routes over an interface may be gone: the kernel does not notify about routes that it
// deletes when an interface goes down.
func (g *gateways) shaken(link int) {
	if _, leads := g.by[link]; leads {
		g.doubt[link] = true
	}
}

// attend sets the interest that the kernel filters by. Interfaces that were dull until now must be read.
func (g *gateways) attend(now *interest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.interest != nil {
		for link := range g.interest.dull {
			if !now.dull[link] {
				g.doubt[link] = true
			}
		}
	}
	g.interest = now
	return g.refilter()
}

// refilter replaces the socket filter if the interest has changed.
func (g *gateways) refilter() error {
	if g.conn == nil || g.interest == nil {
		return nil
	}
	now := *g.interest
	for link := range g.by {
		now.replaced = now.replaced || !now.dull[link]
	}
	if now.equal(g.filtered) {
		return nil
	}
	if err := setFilter(g.conn, &now); err != nil {
		return err
	}
	g.filtered = &now
	return nil
}

// leading returns the interfaces that carry a route with a gateway. It reads those again that are in doubt
// and not dull.
func (g *gateways) leading(ctx context.Context, there map[int]bool) (map[int]bool, error) {
	if err := g.await(ctx); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.known {
		g.by, g.doubt = map[int]destination{}, map[int]bool{}
		if err := g.read(ctx, 0, func(*route) {}); err != nil {
			return nil, err
		}
	}
	for link := range g.doubt {
		if !there[link] {
			delete(g.by, link)
			delete(g.doubt, link)
			continue
		}
		if g.interest.isDull(link) {
			continue
		}
		before, had := g.by[link]
		delete(g.by, link)
		if err := g.read(ctx, link, func(*route) {}); err != nil {
			if had {
				g.by[link] = before
			}
			return nil, err
		}
		delete(g.doubt, link)
	}
	out := map[int]bool{}
	for link := range g.by {
		out[link] = true
	}
	return out, g.refilter()
}

// begin is called with a new subscription: it reads all routes and passes each to f. There may be a million
// routes, so it reads them without holding the lock, and stops when the context ends.
func (g *gateways) begin(ctx context.Context, conn *netlink.Conn, f func(*route)) error {
	defer g.ready()
	if err := g.subscribe(conn); err != nil {
		return err
	}
	all := gateways{by: map[int]destination{}, doubt: map[int]bool{}}
	if err := all.read(ctx, 0, f); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known, g.by = true, all.by
	g.asked, g.listed = g.asked+all.asked, g.listed+all.listed
	return g.refilter()
}

func (g *gateways) subscribe(conn *netlink.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn, g.filtered, g.by, g.doubt = conn, nil, map[int]destination{}, map[int]bool{}
	g.reading = make(chan struct{})
	return g.refilter() // a Find may have run since the subscription
}

// ready ends the wait for begin.
func (g *gateways) ready() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.reading)
	g.reading = nil
}

// await waits while begin reads the routes, so that they are not read twice.
func (g *gateways) await(ctx context.Context) error {
	g.mu.Lock()
	reading := g.reading
	g.mu.Unlock()
	if reading == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-reading:
		return nil
	}
}

// subscribed reports whether route changes are received.
func (g *gateways) subscribed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conn != nil
}

func (g *gateways) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn, g.known = nil, false
}

// read reads the routes over an interface, or all routes if link is 0, and processes those through
// gateways. It processes them one by one and keeps none. A dump that a change interrupted is repeated a few
// times; changes since the subscription are received in any case.
func (g *gateways) read(ctx context.Context, link int, f func(*route)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var err error
		for range 3 {
			if err = g.list(ctx, family, link, f); !errors.Is(err, errInterrupted) {
				break
			}
		}
		if err != nil && !errors.Is(err, errInterrupted) {
			return fmt.Errorf("listing routes: %w", err)
		}
	}
	return nil
}

var errInterrupted = errors.New("the list was interrupted by a change")

func (g *gateways) list(ctx context.Context, family byte, link int, f func(*route)) error {
	g.asked++
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it only reads
	data := make([]byte, attrsAt, attrsAt+2*unix.SizeofRtAttr)
	data[0] = family
	if link != 0 {
		over := netlink.Attribute{Type: unix.RTA_OIF, Data: nlenc.Uint32Bytes(uint32(link))}
		attrs, err := netlink.MarshalAttributes([]netlink.Attribute{over})
		if err != nil {
			return err
		}
		data = append(data, attrs...)
	}
	ask := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request | netlink.Dump},
		Data:   data,
	}
	if _, err := conn.Send(ask); err != nil {
		return err
	}
	interrupted := false
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		r, ok := parseRoute(m.Data)
		if m.Header.Type != unix.RTM_NEWROUTE || !ok || r.cached(m.Data) {
			continue
		}
		g.listed++
		g.note(&r, false, false)
		f(&r)
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}
