// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// A node may have no address on a pod bridge (isGateway: false of the CNI plugin), or have it on another
// device (a VLAN interface, or a pair whose peer is a port of the bridge). Then no route leads to the
// bridge, and a pod is found only by its port, unless a route to a network that contains the address leads
// elsewhere.

// findPorts adds bridge ports to the paths, and the paths of pods that are found only by their port.
func (l *Links) findPorts(pods []Pod, paths map[netip.Addr]inet.Path) error {
	wishes := map[netip.Addr]wish{}
	for _, pod := range pods {
		path, direct := paths[pod.Addr]
		switch {
		case direct && path.Bridge && !path.Sole:
			l.carried[path.Link] = true
			wishes[pod.Addr] = wish{bridge: path.Index}
		case !direct || path.Sole:
			wishes[pod.Addr] = wish{other: l.routes.network(pod.Addr)}
		case path.Bypassed:
			under := l.bridgeUnder(path.Index)
			wishes[pod.Addr] = wish{bridge: under}
			if under == 0 {
				wishes[pod.Addr] = wish{other: path.Link}
			}
		}
	}
	found, err := l.ports.find(l.names, pods, wishes)
	for a := range wishes {
		path := paths[a]
		sole := !path.Bridge || path.Sole
		d, ok := found[a]
		if bridge := l.names[d.master]; ok && sole && bridge.kind == "bridge" {
			l.carried[bridge.name] = true
			path = inet.Path{Index: bridge.index, Link: bridge.name, Bridge: true, Uplink: bridge.uplink, Sole: true}
		} else if sole {
			continue
		}
		path.Port, path.PortIndex, path.Hardware = d.name, d.index, l.ports.hardwareOf(d.index)
		paths[a] = path
	}
	return err
}

func (p *ports) hardwareOf(index int) (h inet.Hardware) {
	if e := p.ends[index]; e != nil {
		h = e.hardware
	}
	return h
}

// Unclear returns the addresses that a bridge port has but that are not accepted there, with the reason, as
// of the last Find.
func (l *Links) Unclear() map[netip.Addr]string { return l.ports.unclear }

// bridgeUnder returns the bridge below an interface of the node: its peer, or the interface it is made of,
// is the bridge or a port of it. It returns 0 for none.
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
