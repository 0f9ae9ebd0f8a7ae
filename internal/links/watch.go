// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a direct route to a single address.
type Host struct {
	Addr netip.Addr
	Link int // the interface's index
}

// quiet is the least time between two wake-ups: pods come in bursts, and each
// brings several changes.
const quiet = 50 * time.Millisecond

// Watch wakes the channel whenever links or routes changed, until ctx ends. A
// subscription that breaks off, because notifications came faster than they
// were read, counts as a change and is made again. Each direct route to a single
// address is handed over without delay when it is new, and once more after each
// subscription: none is missed. appeared must not wait.
func (l *Links) Watch(ctx context.Context, wake chan<- struct{}, appeared func(Host)) error {
	for ctx.Err() == nil {
		if err := l.watch(ctx, wake, appeared); err != nil {
			return err
		}
		l.changed(wake)
		select {
		case <-ctx.Done():
		case <-time.After(quiet):
		}
	}
	return nil
}

// watch returns nil when the subscription ended, an error when it cannot be had.
func (l *Links) watch(ctx context.Context, wake chan<- struct{}, appeared func(Host)) error {
	done := make(chan struct{})
	linksChanged, routesChanged, broken, err := subscribe(done)
	if err != nil {
		close(done)
		return err
	}
	defer drain(linksChanged, routesChanged)
	defer close(done)
	l.changed(wake) // nobody heard what came before
	if err := listHosts(appeared); err != nil {
		return err
	}
	var calm <-chan time.Time // set while no wake-up is due
	again := false
	for {
		open, due := true, true
		var r netlink.RouteUpdate
		select {
		case <-ctx.Done():
			return nil
		case <-broken:
			return nil
		case _, open = <-linksChanged:
		case r, open = <-routesChanged:
			if h, ok := hostOf(r.Route); ok && r.Type == unix.RTM_NEWROUTE {
				appeared(h)
			}
		case <-calm:
			calm, due, again = nil, again, false
		}
		switch {
		case !open:
			return nil
		case calm != nil:
			again = true // one wake-up for all that come meanwhile
		case due:
			l.changed(wake)
			calm = time.After(quiet)
		}
	}
}

// subscribe asks for notifications until done is closed. broken receives when
// some were lost.
func subscribe(done chan struct{}) (chan netlink.LinkUpdate, chan netlink.RouteUpdate, <-chan struct{}, error) {
	broken := make(chan struct{}, 2)
	ended := func(error) {
		select {
		case broken <- struct{}{}:
		default:
		}
	}
	linksChanged, routesChanged := make(chan netlink.LinkUpdate, 64), make(chan netlink.RouteUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(linksChanged, done, netlink.LinkSubscribeOptions{ErrorCallback: ended}); err != nil {
		return nil, nil, nil, fmt.Errorf("watching links: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routesChanged, done, netlink.RouteSubscribeOptions{ErrorCallback: ended}); err != nil {
		return nil, nil, nil, fmt.Errorf("watching routes: %w", err)
	}
	return linksChanged, routesChanged, broken, nil
}

// listHosts hands over the routes that are there.
func listHosts(appeared func(Host)) error {
	routes, err := complete(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		if h, ok := hostOf(r); ok {
			appeared(h)
		}
	}
	return nil
}

// hostOf returns what a route leads to, if that is one address on a link.
func hostOf(r netlink.Route) (h Host, ok bool) {
	if r.Type != unix.RTN_UNICAST || r.Gw != nil || r.Via != nil || r.Dst == nil || len(r.MultiPath) > 0 {
		return h, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	if ones, bits := r.Dst.Mask.Size(); !ok || bits == 0 || ones != bits {
		return h, false
	}
	addr = addr.Unmap()
	return Host{addr, r.LinkIndex}, !addr.IsLinkLocalUnicast()
}

// drain lets the subscriptions end: each closes its channel when it has seen
// that nobody listens any more.
func drain(a <-chan netlink.LinkUpdate, b <-chan netlink.RouteUpdate) {
	for range a {
	}
	for range b {
	}
}

func (l *Links) changed(wake chan<- struct{}) {
	l.stale.Store(true)
	select {
	case wake <- struct{}{}:
	default:
	}
}
