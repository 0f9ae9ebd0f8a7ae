// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// A node may have no address on a bridge of pods (isGateway: false of the CNI
// plugin), or have it on another device (a VLAN interface or a pair of interfaces
// whose other end is a port of the bridge). Then no route leads to the bridge, and a
// pod is found by its port alone. A pod may edit what its port has, so this is
// believed only if nothing speaks against it: no route to a network that the
// address is in, no other port that has it too, no other pod at that port.

// wish says at which ports an address without a route to a bridge is looked for.
type wish struct {
	bridge int    // of these ports only; 0 for all
	other  string // where a route leads instead; then the address is not believed
}

// askEach is how often ports are asked for addresses that were not found.
const askEach = time.Second

// sole are the addresses that were found by their port alone.
type sole struct {
	at    map[netip.Addr]port
	tried map[netip.Addr]time.Time // asked for and not found
	// unclear says why an address that some port has is not believed to be there.
	unclear map[netip.Addr]string
}

// findSole adds the paths of pods that are found by their port alone.
func (l *Links) findSole(pods []Pod, paths map[netip.Addr]inet.Path) error {
	wishes := map[netip.Addr]wish{}
	for _, pod := range pods {
		path, direct := paths[pod.Addr]
		switch {
		case !direct:
			wishes[pod.Addr] = wish{other: l.routes.network(pod.Addr)}
		case path.Beside:
			under := l.bridgeUnder(path.Index)
			wishes[pod.Addr] = wish{bridge: under}
			if under == 0 {
				wishes[pod.Addr] = wish{other: path.Link}
			}
		}
	}
	found, err := l.ports.findSole(l.names, pods, wishes)
	for a, d := range found {
		bridge := l.names[d.master]
		if bridge.kind != "bridge" {
			continue
		}
		l.carried[bridge.name] = true
		paths[a] = inet.Path{Index: bridge.index, Link: bridge.name, Bridge: true, Uplink: bridge.uplink, Port: d.name, Sole: true}
	}
	return err
}

// Unclear returns the addresses that some bridge's port has and that are not
// believed to be there, and why, as the last Find saw it.
func (l *Links) Unclear() map[netip.Addr]string { return l.ports.sole.unclear }

// bridgeUnder returns the bridge that an interface of the node stands on: its
// other end, or what it is made of, is a port of the bridge or the bridge itself.
// It returns 0 for none.
func (l *Links) bridgeUnder(index int) int {
	d := l.names[index]
	below, ok := l.names[d.peer]
	switch {
	case !ok || d.away:
		return 0
	case below.kind == "bridge":
		return below.index
	case l.names[below.master].kind == "bridge":
		return below.master
	}
	return 0
}

// findSole returns the port of each address that is looked for and that may be
// believed to be there.
func (p *ports) findSole(devices map[int]device, pods []Pod, wishes map[netip.Addr]wish) (map[netip.Addr]device, error) {
	now := portsOf(devices)
	found := map[netip.Addr]device{}
	maps.DeleteFunc(p.sole.at, func(_ netip.Addr, at port) bool { _, stays := now[at]; return !stays })
	gone := func(a netip.Addr) bool { _, stays := wishes[a]; return !stays }
	maps.DeleteFunc(p.sole.tried, func(a netip.Addr, _ time.Time) bool { return gone(a) })
	maps.DeleteFunc(p.sole.unclear, func(a netip.Addr, _ string) bool { return gone(a) })
	ask := false
	for a, w := range wishes {
		at, known := p.sole.at[a]
		if d := now[at]; known && w.other == "" && (w.bridge == 0 || w.bridge == d.master) {
			found[a] = d
			continue
		}
		last, tried := p.sole.tried[a]
		ask = ask || !tried || time.Since(last) >= askEach
	}
	if !ask || len(now) == 0 {
		return found, nil
	}
	claims, err := p.claims(now)
	if err != nil {
		return found, err
	}
	owner := map[netip.Addr]Pod{}
	for _, pod := range pods {
		owner[pod.Addr] = pod
	}
	for a, w := range wishes {
		if _, known := found[a]; known {
			continue
		}
		p.sole.tried[a] = time.Now()
		at, why := p.judge(a, w, now, claims, owner)
		if p.sole.unclear[a] = why; why == "" {
			delete(p.sole.unclear, a)
		}
		if d, ok := now[at]; ok && why == "" {
			p.sole.at[a], found[a] = at, d
		}
	}
	return found, nil
}

// judge returns the one port that has the address, or why none is believed.
func (p *ports) judge(a netip.Addr, w wish, now map[port]device, claims map[port][]netip.Addr,
	owner map[netip.Addr]Pod) (found port, why string) {
	var at []port
	for q, addrs := range claims {
		if slices.Contains(addrs, a) {
			at = append(at, q)
		}
	}
	slices.SortFunc(at, older)
	switch {
	case len(at) == 0:
		return port{}, ""
	case len(at) > 1:
		names := make([]string, len(at))
		for i, q := range at {
			names[i] = now[q].name
		}
		return port{}, "the ports " + strings.Join(names, ", ") + " have it"
	case w.other != "":
		return port{}, fmt.Sprintf("the port %s has it, and %s leads elsewhere", now[at[0]].name, w.other)
	case w.bridge != 0 && w.bridge != now[at[0]].master:
		return port{}, fmt.Sprintf("the port %s of another bridge has it", now[at[0]].name)
	}
	for _, b := range slices.Concat(claims[at[0]], p.of[at[0]]) {
		if other, known := owner[b]; known && (other.Name != owner[a].Name || other.ID != owner[a].ID) {
			return port{}, fmt.Sprintf("the port %s has it, which is that of %s", now[at[0]].name, other.Name)
		}
	}
	return at[0], ""
}

// claims asks all ports for their addresses.
func (p *ports) claims(now map[port]device) (map[port][]netip.Addr, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("connecting to rtnetlink: %w", err)
	}
	defer func() { _ = conn.Close() }() // it only asked
	claims := map[port][]netip.Addr{}
	for at := range now {
		if addrs, err := addressesAway(conn, at.netns, at.peer); err == nil {
			claims[at] = addrs // else it is going away; the kernel will tell
		}
	}
	return claims, nil
}
