// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package links knows how pods are wired to this node: which interface leads to
// a pod, whether that is a bridge, and whether the bridge hands its packets to
// the IP hooks. It asks the kernel by netlink and knows no CNI plugin.
//
// It is an edge: datapath asks it before it renders. The only settings that it
// changes are those of bridges that datapath names, and it returns what it
// found there, so that they can be restored.
package links

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/inet"
)

// Links finds paths, and remembers them until the kernel says that links or
// routes changed. Find is called by one goroutine; Watch runs in another.
type Links struct {
	options Options
	stale   atomic.Bool
	node    atomic.Pointer[[]netip.Addr] // addresses of the Node object
	known   map[netip.Addr]inet.Path
	routes  answers        // for addresses that are not known
	names   map[int]device // by index
	carried map[string]bool
	ports   ports
	// wanted are the addresses of the last Find.
	wanted   map[netip.Addr]bool
	gateways gateways
	open     atomic.Pointer[map[int]bool] // by index, as the last Open saw them
}

// Options are the operator's choices.
type Options struct {
	// Uplinks are names, also with * and ?, of interfaces that lead elsewhere than
	// to pods, whatever they look like.
	Uplinks []string
}

// New returns an empty memory.
func New(o Options) *Links {
	return &Links{options: o, carried: map[string]bool{}, ports: newPorts()}
}

// SetNodeAddresses says which addresses the Node object has: an interface with
// one of them leads out of the node.
func (l *Links) SetNodeAddresses(list []netip.Addr) {
	l.node.Store(&list)
	l.stale.Store(true)
}

// Pod is an address and the pod that has it. Addresses of one pod have the same name
// and ID. Links are the interfaces on the node's side that the container runtime
// announced for it; nil if it did not.
type Pod struct {
	Addr     netip.Addr
	Name, ID string
	Links    []string
}

// Find returns the paths of the pods' addresses that a direct route leads to, or
// that one port of a bridge has while no route says otherwise. Others (of a pod whose interface is
// not there yet, of a network that does not pass this node's IP layer) are left
// out. It gives up soon after the context ends.
func (l *Links) Find(ctx context.Context, pods []Pod) (map[netip.Addr]inet.Path, error) {
	found, all, err := l.find(ctx, pods)
	if err == nil && !all {
		l.stale.Store(true) // a link that is too new to have been heard of
		found, _, err = l.find(ctx, pods)
	}
	if err != nil {
		return nil, err
	}
	before := l.known
	l.known = found
	if err := l.findPorts(pods, found); err != nil || !newWithoutPort(found, before) {
		return found, err
	}
	l.stale.Store(true) // its port may be too new to have been heard of
	if found, _, err = l.find(ctx, pods); err != nil {
		return nil, err
	}
	l.known = found
	return found, l.findPorts(pods, found)
}

// newWithoutPort reports whether a pod on a bridge that was not known before has
// no port there.
func newWithoutPort(found, before map[netip.Addr]inet.Path) bool {
	for a, p := range found {
		if _, known := before[a]; !known && p.Bridge && p.Port == "" {
			return true
		}
	}
	return false
}

// find returns the paths, and whether every route led to a link that is known.
func (l *Links) find(ctx context.Context, pods []Pod) (found map[netip.Addr]inet.Path, all bool, err error) {
	if err := l.look(ctx, pods); err != nil {
		l.stale.Store(true)
		return nil, false, err
	}
	found, all = make(map[netip.Addr]inet.Path, len(pods)), true
	for _, pod := range pods {
		a := pod.Addr
		p, ok := l.known[a]
		if !ok || p.Sole { // a route may say otherwise by now
			r := l.routes.to(a)
			if !r.direct {
				continue
			}
			d, known := l.names[r.index]
			all = all && known
			if !known {
				continue
			}
			p = inet.Path{Index: d.index, Link: d.name, Bridge: d.kind == "bridge", Uplink: d.uplink, Beside: d.beside(), Elsewhere: d.elsewhere()}
			if pair(d.kind) && d.away && !d.named {
				p.Uplink = false // a pod that routes for others is a pod
			}
		}
		found[a] = p
	}
	return found, all, nil
}

// look surveys the interfaces if anything changed since the last time. What is
// wanted is told before it is asked for, so that no change in between is missed.
func (l *Links) look(ctx context.Context, pods []Pod) error {
	wanted := make(map[netip.Addr]bool, len(pods))
	for _, pod := range pods {
		wanted[pod.Addr] = true
	}
	if l.stale.Swap(false) || l.known == nil {
		names, err := l.survey(ctx, wanted)
		if err != nil {
			return err
		}
		l.known, l.names, l.routes.by = map[netip.Addr]inet.Path{}, names, nil
	} else if !maps.Equal(wanted, l.wanted) {
		if err := l.gateways.attend(&interest{dull: dull(l.names), wanted: wanted}); err != nil {
			return err
		}
	}
	l.wanted = wanted
	l.routes.keep(wanted, l.gateways.subscribed())
	return nil
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

// LocalAddresses returns every address of this network namespace, sorted.
func LocalAddresses() ([]netip.Addr, error) {
	own, _, err := Addresses()
	return own, err
}

// Addresses returns every address of this network namespace, and the broadcast
// addresses of its IPv4 networks: the last one, the first one too (which kernels
// before 5.14 treat so), and what an operator set. Both are sorted.
func Addresses() (own, broadcasts []netip.Addr, err error) {
	list, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			own = append(own, ip.Unmap())
		}
		broadcasts = append(broadcasts, broadcastsOf(a)...)
	}
	slices.SortFunc(own, netip.Addr.Compare)
	slices.SortFunc(broadcasts, netip.Addr.Compare)
	return own, slices.Compact(broadcasts), nil
}

// broadcastsOf returns the broadcast addresses that an address of the node brings.
func broadcastsOf(a netlink.Addr) (list []netip.Addr) {
	if set, ok := netip.AddrFromSlice(a.Broadcast); ok {
		list = append(list, set.Unmap())
	}
	ip, ok := netip.AddrFromSlice(a.IP.To4())
	if !ok {
		return list
	}
	bits, _ := a.Mask.Size()
	if bits == 0 || bits > 30 {
		return list // no network, or one without such addresses
	}
	net, last := netip.PrefixFrom(ip, bits).Masked().Addr(), ip.As4()
	for i := bits; i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return append(list, net, netip.AddrFrom4(last))
}
