// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package links knows how pods are wired to this node: which interface leads to
// a pod, whether that is a bridge, and whether the bridge hands its packets to
// the IP hooks. It asks the kernel by netlink and knows no CNI plugin.
//
// It is an edge: datapath asks it before it renders. The only settings that it
// changes are those of bridges that carry a known pod, and it returns what it
// found there, so that they can be restored.
package links

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Path is how a pod's address is reached from the node.
type Path struct {
	Index  int
	Link   string // the interface's name
	Bridge bool
	// Uplink is true if the interface also leads out of the node. Then other
	// machines may be behind it, so that addresses which belong to no pod are no
	// sign of anything wrong.
	Uplink bool
}

// Links finds paths, and remembers them until the kernel says that links or
// routes changed. Find is called by one goroutine; Watch runs in another.
type Links struct {
	stale atomic.Bool
	known map[netip.Addr]Path
	names map[int]Path // by index, without addresses
}

// New returns an empty memory.
func New() *Links { return &Links{} }

// Find returns the paths of the addresses that a direct route leads to. An
// address without one (a pod whose interface is not there yet, a network that
// does not pass this node's IP layer) is left out.
func (l *Links) Find(addrs []netip.Addr) (map[netip.Addr]Path, error) {
	if l.stale.Swap(false) || l.known == nil {
		names, err := survey()
		if err != nil {
			l.stale.Store(true)
			return nil, err
		}
		l.known, l.names = map[netip.Addr]Path{}, names
	}
	found := make(map[netip.Addr]Path, len(addrs))
	for _, a := range addrs {
		p, ok := l.known[a]
		if !ok {
			if p, ok = l.lookup(a); !ok {
				continue
			}
		}
		found[a] = p
	}
	l.known = found
	return found, nil
}

// survey lists the interfaces and marks those that lead out of the node: by a
// route with a gateway in any table, or a bridge with a port that is not made for
// a pod or a virtual machine (a network card, a bond, a tunnel).
func survey() (map[int]Path, error) {
	list, err := complete(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	names := map[int]Path{}
	uplink := map[int]bool{}
	for _, link := range list {
		a := link.Attrs()
		names[a.Index] = Path{Index: a.Index, Link: a.Name, Bridge: link.Type() == "bridge"}
		if kind := link.Type(); a.MasterIndex != 0 && kind != "veth" && kind != "tuntap" {
			uplink[a.MasterIndex] = true
		}
	}
	routes, err := complete(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw != nil || r.Via != nil {
			uplink[r.LinkIndex] = true
		}
		for _, h := range r.MultiPath {
			uplink[h.LinkIndex] = true
		}
	}
	for index := range uplink {
		if p, ok := names[index]; ok {
			p.Uplink = true
			names[index] = p
		}
	}
	return names, nil
}

// complete repeats a listing that was interrupted by a change: then it may lack
// anything.
func complete[T any](list func() ([]T, error)) (found []T, err error) {
	for range 10 {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// lookup asks the kernel which way a packet to the address would take.
func (l *Links) lookup(a netip.Addr) (Path, bool) {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return Path{}, false // unreachable: no route is the normal case here
	}
	r := routes[0]
	if r.Gw != nil || r.Via != nil || r.Type != unix.RTN_UNICAST {
		return Path{}, false
	}
	p, ok := l.names[r.LinkIndex]
	return p, ok
}

// quiet is the least time between two wake-ups: pods come in bursts, and each
// brings several changes.
const quiet = 50 * time.Millisecond

// Watch wakes the channel whenever links or routes changed, until ctx ends. A
// subscription that breaks off, because notifications came faster than they
// were read, counts as a change and is made again.
func (l *Links) Watch(ctx context.Context, wake chan<- struct{}) error {
	for ctx.Err() == nil {
		if err := l.watch(ctx, wake); err != nil {
			return err
		}
		l.changed(ctx, wake)
	}
	return nil
}

// watch returns nil when the subscription ended, an error when it cannot be had.
func (l *Links) watch(ctx context.Context, wake chan<- struct{}) error {
	done := make(chan struct{})
	broken := make(chan struct{}, 2)
	ended := func(error) {
		select {
		case broken <- struct{}{}:
		default:
		}
	}
	linksChanged, routesChanged := make(chan netlink.LinkUpdate, 64), make(chan netlink.RouteUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(linksChanged, done, netlink.LinkSubscribeOptions{ErrorCallback: ended}); err != nil {
		close(done)
		return fmt.Errorf("watching links: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routesChanged, done, netlink.RouteSubscribeOptions{ErrorCallback: ended}); err != nil {
		close(done)
		return fmt.Errorf("watching routes: %w", err)
	}
	defer drain(linksChanged, routesChanged)
	defer close(done)
	for {
		open := true
		select {
		case <-ctx.Done():
			return nil
		case <-broken:
			return nil
		case _, open = <-linksChanged:
		case _, open = <-routesChanged:
		}
		if !open {
			return nil
		}
		for len(linksChanged)+len(routesChanged) > 0 { // one wake-up for all that came meanwhile
			select {
			case <-linksChanged:
			case <-routesChanged:
			default:
			}
		}
		l.changed(ctx, wake)
	}
}

// drain lets the subscriptions end: each closes its channel when it has seen
// that nobody listens any more.
func drain(a <-chan netlink.LinkUpdate, b <-chan netlink.RouteUpdate) {
	for range a {
	}
	for range b {
	}
}

func (l *Links) changed(ctx context.Context, wake chan<- struct{}) {
	l.stale.Store(true)
	select {
	case wake <- struct{}{}:
	default:
	}
	select {
	case <-ctx.Done():
	case <-time.After(quiet):
	}
}

// LocalAddresses returns every address of this network namespace.
func LocalAddresses() ([]netip.Addr, error) {
	list, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, ip.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, nil
}
