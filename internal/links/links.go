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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Path is how a pod's address is reached from the node.
type Path struct {
	Index  int
	Link   string // the interface's name
	Bridge bool
	// Uplink is true if the interface also leads out of the node, by a route
	// with a gateway. Then other machines may be behind it, so that addresses
	// which belong to no pod are no sign of anything wrong.
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

// survey lists the interfaces and marks those that lead out of the node.
func survey() (map[int]Path, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	names := map[int]Path{}
	for _, link := range list {
		a := link.Attrs()
		names[a.Index] = Path{Index: a.Index, Link: a.Name, Bridge: link.Type() == "bridge"}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		hops := r.MultiPath
		if r.Gw != nil || r.Via != nil {
			hops = append(hops, &netlink.NexthopInfo{LinkIndex: r.LinkIndex})
		}
		for _, h := range hops {
			if p, ok := names[h.LinkIndex]; ok {
				p.Uplink = true
				names[h.LinkIndex] = p
			}
		}
	}
	return names, nil
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

// Watch wakes the channel whenever links or routes change, until ctx ends. A
// notification that the kernel had to drop counts as a change.
func (l *Links) Watch(ctx context.Context, wake chan<- struct{}) error {
	for ctx.Err() == nil {
		if err := l.watch(ctx, wake); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		l.changed(wake)
	}
	return nil
}

func (l *Links) watch(ctx context.Context, wake chan<- struct{}) error {
	done, failed := make(chan struct{}), make(chan error, 2)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	linksChanged, routesChanged := make(chan netlink.LinkUpdate, 64), make(chan netlink.RouteUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(linksChanged, done, netlink.LinkSubscribeOptions{ErrorCallback: fail}); err != nil {
		close(done)
		return fmt.Errorf("watching links: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routesChanged, done, netlink.RouteSubscribeOptions{ErrorCallback: fail}); err != nil {
		close(done)
		return fmt.Errorf("watching routes: %w", err)
	}
	defer drain(linksChanged, routesChanged)
	defer close(done)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case _, ok := <-linksChanged:
			if !ok {
				return unix.ENOBUFS
			}
		case _, ok := <-routesChanged:
			if !ok {
				return unix.ENOBUFS
			}
		}
		l.changed(wake)
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

func (l *Links) changed(wake chan<- struct{}) {
	l.stale.Store(true)
	select {
	case wake <- struct{}{}:
	default:
	}
}

// LocalAddresses returns every address of this network namespace.
func LocalAddresses() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
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
