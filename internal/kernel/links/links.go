// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package links finds how pods are connected to this node: the interface that leads to a pod, whether it is
// a bridge, and whether the bridge passes its packets to the IP hooks. It reads the kernel by netlink and
// depends on no CNI plugin.
//
// It is an edge: datapath uses it before it renders. It changes only the settings of bridges that datapath
// names, and returns the former ones, so that they can be restored.
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

// Links finds paths and caches them until the kernel reports a change of links or routes. Find is called by
// one goroutine; Watch runs in another.
type Links struct {
	options Options
	stale   atomic.Bool
	node    atomic.Pointer[[]netip.Addr] // addresses of the Node object
	known   map[netip.Addr]inet.Path
	routes  answers        // for addresses without a known path
	names   map[int]device // by index
	carried map[string]bool
	onTaps  bool // a tap has carried a known pod
	ports   ports
	// wanted are the addresses of the last Find.
	wanted   map[netip.Addr]bool
	gateways gateways
	own      own
	ahead    ahead
	open     atomic.Pointer[map[int]bool] // by index, as of the last Open
}

// Options are the operator's choices.
type Options struct {
	// Uplinks are names of interfaces that do not lead to pods, whatever their kind; * and ? are wildcards.
	Uplinks []string
}

// New returns Links with an empty cache.
func New(o Options) *Links {
	return &Links{options: o, carried: map[string]bool{}, ports: newPorts()}
}

// SetNodeAddresses sets the addresses of the Node object: an interface with one of them leads out of the
// node.
func (l *Links) SetNodeAddresses(list []netip.Addr) {
	l.node.Store(&list)
	l.stale.Store(true)
}

// Pod is an address and its pod. Addresses of one pod have the same name and ID. Links are the interfaces
// on the node's side that the container runtime announced for it; nil if it announced none.
type Pod struct {
	Addr     netip.Addr
	Name, ID string
	Links    []string
}

// Find returns the paths of pod addresses that have a direct route, or that exactly one bridge port has and
// no route contradicts. It omits other addresses: of a pod whose interface is not there yet, or of a
// network that bypasses this node's IP layer. It returns soon after the context ends.
func (l *Links) Find(ctx context.Context, pods []Pod) (map[netip.Addr]inet.Path, error) {
	found, all, err := l.find(ctx, pods)
	if err == nil && !all {
		l.stale.Store(true) // the link is newer than the last survey
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
	l.stale.Store(true) // the port may be newer than the last survey
	if found, _, err = l.find(ctx, pods); err != nil {
		return nil, err
	}
	l.known = found
	return found, l.findPorts(pods, found)
}

// newWithoutPort reports whether a bridged pod without a port was not known before.
func newWithoutPort(found, before map[netip.Addr]inet.Path) bool {
	for a, p := range found {
		if _, known := before[a]; !known && p.Bridge && p.Port == "" {
			return true
		}
	}
	return false
}

// find returns the paths, and whether every route leads to a known link.
func (l *Links) find(ctx context.Context, pods []Pod) (found map[netip.Addr]inet.Path, all bool, err error) {
	if err := l.look(ctx, pods); err != nil {
		l.stale.Store(true)
		return nil, false, err
	}
	found, all = make(map[netip.Addr]inet.Path, len(pods)), true
	for _, pod := range pods {
		a := pod.Addr
		p, ok := l.known[a]
		if !ok || p.Sole { // by now a route may lead elsewhere
			r := l.routes.to(a)
			if !r.direct {
				continue
			}
			d, known := l.names[r.index]
			all = all && known
			if !known {
				continue
			}
			p = inet.Path{Index: d.index, Link: d.name, Bridge: d.kind == "bridge",
				Uplink: d.uplink, Bypassed: d.bypassed(), Elsewhere: d.elsewhere()}
			if pair(d.kind) && d.away && !d.named {
				p.Uplink = false // a pod that routes for others is still a pod
			}
			l.onTaps = l.onTaps || d.tap && !d.uplink
		}
		found[a] = p
	}
	return found, all, nil
}

// look surveys the interfaces if anything changed since the last call. The filter learns the wanted
// addresses before their routes are read, so that no change in between is missed.
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

// complete repeats a dump that a change interrupted, because such a dump may lack anything.
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

// Addresses returns all addresses of this network namespace, and the broadcast addresses of its IPv4
// networks: the last address, the first one (which kernels before 5.14 treat as broadcast), and those that
// an operator set. Both lists are sorted.
func Addresses() (own, broadcasts []netip.Addr, err error) {
	list, err := listAddresses()
	own, broadcasts = summarize(list)
	return own, broadcasts, err
}

func summarize(list []netlink.Addr) (own, broadcasts []netip.Addr) {
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			own = append(own, ip.Unmap())
		}
		broadcasts = append(broadcasts, broadcastsOf(a)...)
	}
	slices.SortFunc(own, netip.Addr.Compare)
	slices.SortFunc(broadcasts, netip.Addr.Compare)
	return own, slices.Compact(broadcasts)
}

// listAddresses lists both families, one after the other: since 6.9 the kernel takes no lock for that, which
// it does for a list of all families.
func listAddresses() (all []netlink.Addr, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("listing addresses: %w", err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// broadcastsOf returns the broadcast addresses that belong to an address of the node.
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
		return list // no network, or one without broadcast addresses
	}
	net, last := netip.PrefixFrom(ip, bits).Masked().Addr(), ip.As4()
	for i := bits; i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return append(list, net, netip.AddrFrom4(last))
}
