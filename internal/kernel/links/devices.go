// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/inet"
)

// device describes an interface and where it leads.
type device struct {
	index  int
	name   string
	kind   string // "veth", "bridge", "device" for a network card, …
	tap    bool   // a tuntap interface that carries frames, as for a virtual machine
	master int    // the bridge or bond that it is a port of, 0 for none
	// hardware is its hardware address; the zero value if it has none.
	hardware inet.Hardware
	// away is true if the peer of a pair is in another network namespace.
	away        bool
	netns, peer int  // the id of that namespace, and the peer's index
	uplink      bool // leads out of the node
	named       bool // as an uplink, by the operator or the Node object
	ofNode      bool // as an uplink, by the Node object
}

// survey lists the interfaces and marks uplinks, which lead out of the node. Network cards and tunnels are
// uplinks. Other interfaces are uplinks if they carry a route with a gateway in any table, if they have an
// address of the Node object, if they are a bridge with a port that is not made for a pod or a virtual
// machine (a network card, a bond, a tunnel), or if the operator names them.
func (l *Links) survey(ctx context.Context, wanted map[netip.Addr]bool) (map[int]device, error) {
	list, err := l.ahead.interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	named := map[int]bool{}
	if err := l.nodeLinks(named); err != nil {
		return nil, err
	}
	devices, ports := map[int]device{}, map[int]bool{}
	for _, link := range list {
		a := link.Attrs()
		hardware, _ := inet.HardwareFrom(a.HardwareAddr)
		devices[a.Index] = device{hardware: hardware,
			index: a.Index, name: a.Name, kind: link.Type(), tap: isTap(link), master: a.MasterIndex,
			away: a.NetNsID >= 0, netns: a.NetNsID, peer: a.ParentIndex}
		if kind := link.Type(); a.MasterIndex != 0 && kind != "tuntap" && !(pair(kind) && a.NetNsID >= 0) {
			ports[a.MasterIndex] = true
		}
	}
	there := map[int]bool{}
	for index, d := range devices {
		d.ofNode = named[index]
		d.named = d.ofNode || matches(d.name, l.options.Uplinks)
		devices[index], there[index] = d, true
	}
	if err := l.gateways.attend(&interest{dull: dull(devices), wanted: wanted}); err != nil {
		return nil, err
	}
	out, err := l.gateways.leading(ctx, there)
	if err != nil {
		return nil, err
	}
	for index, d := range devices {
		d.uplink = out[index] || ports[index] || d.dull()
		devices[index] = d
	}
	return devices, nil
}

// isTap tells a tap from a tun interface, which carries packets and is a tunnel.
func isTap(link netlink.Link) bool {
	t, ok := link.(*netlink.Tuntap)
	return ok && t.Mode == netlink.TUNTAP_MODE_TAP
}

// dull reports whether a gateway behind the interface makes no difference: the interface leads out of the
// node, or to the node itself, in any case.
func (d device) dull() bool {
	return d.named || d.kind != "bridge" && d.kind != "tuntap" && !slices.Contains(besideKinds(), d.kind)
}

func dull(devices map[int]device) map[int]bool {
	list := map[int]bool{}
	for index, d := range devices {
		if d.dull() {
			list[index] = true
		}
	}
	return list
}

// pair reports whether interfaces of that kind come in pairs, with one end for a pod.
func pair(kind string) bool { return kind == "veth" || kind == "netkit" }

// bypassed reports whether pods behind the interface bypass the IP hooks. Both ends of Cilium's own pair are
// on the node, for example.
func (d device) bypassed() bool {
	return d.kind != "bridge" && d.kind != "tuntap" && !(pair(d.kind) && d.away)
}

func (l *Links) nodeLinks(out map[int]bool) error {
	node := l.node.Load()
	if node == nil || len(*node) == 0 {
		return nil
	}
	addrs, err := l.ownAddresses()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && slices.Contains(*node, ip.Unmap()) {
			out[a.LinkIndex] = true
		}
	}
	return nil
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// Names that reveal the purpose of an interface. An interface is closed as soon as the kernel has it,
// before its use is known, so names count.
var (
	podBridges   = []string{"cni0", "cbr0", "kube-bridge", "weave"}
	foreignPairs = []string{"ve-*", "vb-*"} // systemd-nspawn
)

// mayLeadToPods reports whether unknown pods may be behind the interface: it is one end of a pair whose
// peer is in another network namespace, a bridge of the pod network, or a tap where taps have carried pods.
// Bridges of other programs (docker0, virbr0, lxdbr0 and others) never carried a pod, and most taps are a
// VPN's or a virtual machine's.
func (l *Links) mayLeadToPods(d device) bool {
	switch {
	case d.uplink:
		return false
	case d.kind == "bridge":
		return l.carried[d.name] || slices.Contains(podBridges, d.name)
	case d.tap:
		return l.onTaps && d.master == 0
	}
	return pair(d.kind) && d.away && d.master == 0 && !matches(d.name, foreignPairs)
}

// Open returns the interfaces that do not lead to pods, sorted, as of the last Find.
func (l *Links) Open() []string {
	var names []string
	carrying, open := map[int]bool{}, map[int]bool{}
	for _, p := range l.known {
		carrying[p.Index] = carrying[p.Index] || !p.Uplink && !p.Bypassed
	}
	for _, d := range l.names {
		port := pair(d.kind) && d.master != 0 // the IP hooks see the bridge instead
		if !port && !carrying[d.index] && !l.mayLeadToPods(d) {
			names = append(names, d.name)
			open[d.index] = true
		}
	}
	l.open.Store(&open)
	slices.Sort(names)
	return names
}

// Bridges returns the bridges of the pod network as of the last Find, including those without a known pod,
// sorted by name.
func (l *Links) Bridges() []inet.Path {
	var list []inet.Path
	for _, d := range l.names {
		if d.kind == "bridge" && l.mayLeadToPods(d) {
			list = append(list, inet.Path{Index: d.index, Link: d.name, Bridge: true})
		}
	}
	slices.SortFunc(list, func(a, b inet.Path) int { return cmp.Compare(a.Link, b.Link) })
	return list
}

// WithoutPod returns the interfaces that may lead to pods but had no known pod at the last Find, sorted:
// ends of pairs, including ports of pod bridges. A closed node drops all packets there.
func (l *Links) WithoutPod() []string {
	known := map[string]bool{}
	bridges := map[int]bool{}
	for _, p := range l.known {
		known[p.Link], known[p.Port] = true, true
		bridges[p.Index] = bridges[p.Index] || p.Bridge && !p.Uplink
	}
	var list []string
	for _, d := range l.names {
		above := l.names[d.master]
		closed := l.mayLeadToPods(d)
		if above.kind == "bridge" {
			closed = pair(d.kind) && d.away && (bridges[above.index] || l.mayLeadToPods(above))
		}
		if d.kind != "bridge" && closed && !known[d.name] {
			list = append(list, d.name)
		}
	}
	slices.Sort(list)
	return list
}

// NodePorts returns the bridge ports that lead to the node itself, sorted, by the index of the bridge: the
// peer is an interface of the node and not a port.
func (l *Links) NodePorts() map[int][]string {
	return l.portsThat(func(d device) bool {
		other, here := l.names[d.peer]
		return pair(d.kind) && !d.away && here && other.master == 0
	})
}

// Ports returns the ports of all bridges, sorted, by the index of the bridge.
func (l *Links) Ports() map[int][]string { return l.portsThat(func(device) bool { return true }) }

// UplinkPorts returns the bridge ports that are made neither for a pod nor for a virtual machine: network
// cards, bonds, tunnels.
func (l *Links) UplinkPorts() map[int][]string {
	return l.portsThat(func(d device) bool { return !pair(d.kind) && d.kind != "tuntap" })
}

// Hardware returns the owners of hardware addresses, as far as the node knows: an interface of the node, or
// the peer of a port, with the address that it had when it was first read. For a port with a known pod the
// owner is the pod.
func (l *Links) Hardware() map[inet.Hardware]string {
	whose := map[inet.Hardware]string{}
	for _, e := range l.ports.ends {
		who := e.pod.name
		if e.pod.unknown() {
			who = "the port " + e.port
		}
		whose[e.seen], whose[e.hardware] = who, who
	}
	for _, d := range l.names {
		whose[d.hardware] = "the interface " + d.name
	}
	delete(whose, inet.Hardware{})
	return whose
}

func (l *Links) portsThat(are func(device) bool) map[int][]string {
	ports := map[int][]string{}
	for _, d := range l.names {
		if l.names[d.master].kind == "bridge" && are(d) {
			ports[d.master] = append(ports[d.master], d.name)
		}
	}
	for _, names := range ports {
		slices.Sort(names)
	}
	return ports
}

// AnyBridge reports whether the node had any bridge at the last Find, including those of other programs.
func (l *Links) AnyBridge() bool {
	for _, d := range l.names {
		if d.kind == "bridge" {
			return true
		}
	}
	return false
}

// LeadsElsewhere reports whether the last Open returned the interface. Any goroutine may call it.
func (l *Links) LeadsElsewhere(index int) bool {
	open := l.open.Load()
	return open != nil && (*open)[index]
}

// RememberedBridges returns the bridges that have carried a pod since the memory began.
func (l *Links) RememberedBridges() []string { return slices.Sorted(maps.Keys(l.carried)) }

// Remember adds bridges that carried pods under an earlier process.
func (l *Links) Remember(bridges []string) {
	for _, name := range bridges {
		l.carried[name] = true
	}
}
