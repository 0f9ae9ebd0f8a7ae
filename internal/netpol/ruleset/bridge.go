// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// On a bridge the IP hooks see the bridge as input interface, not the port, and they
// see neither ARP nor neighbour discovery. So a table of family bridge binds each pod's
// addresses to its port on input, before the bridge learns from the frame: a pod sends
// from its own hardware address and one of its own addresses, and announces no others.
// Every frame of every bridge traverses it (ADR 0019 has the cost); the common case is
// accepted by one set lookup.
const (
	// CounterSpoofedFrame counts frames that use or announce an address of another port.
	CounterSpoofedFrame = "drop-spoofed-frame"
	// CounterStacked counts frames with stacked VLAN tags.
	CounterStacked = "drop-stacked-tags"

	chainFrames             = "frames"   // of bridges of pods, but for the usual ones
	chainPodPort            = "pod-port" // frames of a port with a known pod
	chainUnknownPort        = "unknown-port"
	chainNeighbourDiscovery = "neighbour-discovery" // its ICMPv6 packets
	chainSpoofed            = "spoofed"
	setPortSource           = "port-source" // with 4 or 6
	setPodAddress           = "pod-address"
	setPortHardware         = "port-hardware"
	setPodHardware          = "pod-hardware"
	setPodPorts             = "pod-ports"
	setNonPodPorts          = "non-pod-ports"
	setUplinkPorts          = "uplink-ports"

	// priorityFrames is before br_netfilter shows a frame to the IP hooks.
	priorityFrames = -300
	// Types of ICMPv6 (RFC 4861, 4.2 to 4.5), and its number.
	routerAdvertisement, solicitation, advertisement, redirect = 134, 135, 136, 137
	icmpv6                                                     = 58
)

// RenderBridge returns the content of our table of family bridge; nil if no bridge
// has pods.
func RenderBridge(n program.Node) *nft.Table {
	if len(n.PodBridges) == 0 {
		return nil
	}
	t := &nft.Table{TableID: BridgeTable(), Counters: []string{CounterSpoofedFrame, CounterStacked},
		Sets: bridgeSets(n),
		Chains: []*nft.Chain{atPort(), frames(), podPort(), neighbourDiscovery(), unknownPort(),
			{Name: chainSpoofed, Rules: []nft.Rule{dropped(CounterSpoofedFrame, "")}}}}
	t.Sort()
	return t
}

// bridgeSets returns the sets of addresses per port.
func bridgeSets(n program.Node) []*nft.Set {
	hardware := &nft.Set{Name: setPortHardware, Key: nft.InterfaceHardware, Comment: "hardware address per port"}
	owned := &nft.Set{Name: setPodHardware, Key: nft.Hardware, Comment: "hardware addresses of pods"}
	var ports []string
	for _, at := range n.Ported {
		if at.Port == "" {
			continue
		}
		ports = append(ports, at.Port)
		hardware.Entries = append(hardware.Entries, nft.Entry{Key: nft.Key{Iface: at.Port, Hardware: at.Hardware}})
		owned.Entries = append(owned.Entries, nft.Entry{Key: nft.Key{Hardware: at.Hardware}})
	}
	hardware.Entries, owned.Entries = oneEach(hardware.Entries), oneEach(owned.Entries)
	sets := []*nft.Set{hardware, owned,
		{Name: setPodPorts, Key: nft.Interface, Entries: interfaces(ports), Comment: "ports with a known pod"},
		{Name: setNonPodPorts, Key: nft.Interface, Entries: interfaces(n.OtherPorts),
			Comment: "ports of other bridges and of the node"},
		{Name: setUplinkPorts, Key: nft.Interface, Entries: interfaces(n.UplinkPorts),
			Comment: "ports that lead out of the node"}}
	for _, f := range inet.Families {
		sets = append(sets, addressSets(n, f)...)
	}
	return sets
}

// addressSets returns which addresses belong to which port, and those that no other
// port may have.
func addressSets(n program.Node, f inet.Family) []*nft.Set {
	v6 := f == inet.IPv6
	portSource := &nft.Set{Name: perFamily(setPortSource, f), Key: either(v6, nft.InterfaceHardwareAddr6,
		nft.InterfaceHardwareAddr4),
		Comment: "allowed addresses per port"}
	owned := &nft.Set{Name: perFamily(setPodAddress, f), Key: either(v6, nft.Addr6, nft.Addr4),
		Comment: "addresses of pods and of the node"}
	add := func(at program.Attachment, a netip.Addr, comment string) {
		key := nft.Key{Element: inet.Element{Addr: a}, Iface: at.Port, Hardware: at.Hardware}
		portSource.Entries = append(portSource.Entries, nft.Entry{Key: key, Comment: comment})
		owned.Elements = owned.Elements.With(inet.Element{Addr: a})
	}
	for _, at := range n.Ported {
		if at.Port == "" {
			continue
		}
		if inet.FamilyOf(at.Addr) == f {
			add(at, at.Addr, portComment(at))
		}
		if v6 {
			add(at, at.Hardware.LinkLocal(), "")
		}
	}
	for _, a := range n.Owned {
		if inet.FamilyOf(a) == f {
			owned.Elements = owned.Elements.With(inet.Element{Addr: a})
		}
	}
	portSource.Entries = oneEach(portSource.Entries)
	return []*nft.Set{portSource, owned}
}

// atPort meets every frame that comes in by a port of a bridge. The kernel shows the
// packet behind one VLAN tag here.
func atPort() *nft.Chain {
	c := &nft.Chain{Name: chainPrerouting,
		Base: &nft.Base{Type: "filter", Hook: "prerouting", Priority: priorityFrames}}
	c.Add("the pod's own address", ip, portSource(nft.InputHardwareSource, inet.IPv4), accept)
	c.Add("the pod's own address", ip6, nft.MatchProtocol{Protocol: icmpv6, Negate: true},
		portSource(nft.InputHardwareSource, inet.IPv6), accept)
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setNonPodPorts, Negate: true}, nft.GoTo(chainFrames))
	return c
}

// frames sorts what is not a packet of a known pod. A bridge shows packets behind one
// VLAN tag to the IP hooks, while a receiver takes off any number of tags with VLAN 0:
// no protocol uses a tag behind one of those.
func frames() *nft.Chain {
	c := &nft.Chain{Name: chainFrames}
	for _, etherType := range []uint16{0x8100, 0x88a8} { // 802.1Q, 802.1ad
		c.Add("", nft.MatchTagBehind{EtherType: etherType}, nft.Count{Counter: CounterStacked},
			nft.Verdict{Kind: nft.Drop})
	}
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setPodPorts}, nft.GoTo(chainPodPort))
	c.Add("", nft.GoTo(chainUnknownPort))
	return c
}

// boundPort judges what a known pod sends: only its own addresses, and unassigned
// ones while it has none yet (DHCP, duplicate address detection) or that every
// interface makes up for its link.
func podPort() *nft.Chain {
	c := &nft.Chain{Name: chainPodPort}
	c.Add("wrong hardware address", nft.Lookup{Field: nft.InputHardware, Set: setPortHardware, Negate: true}, spoofed)
	c.Add("", arp, portSource(nft.InputHardwareARP, inet.IPv4), accept)
	c.Add("", arp, nft.MatchARPSource{}, portSource(nft.InputHardwareARPTarget, inet.IPv4), accept)
	c.Add("claims another pod's address", arp, nft.MatchARPSource{}, own(nft.ARPTarget, inet.IPv4), spoofed)
	c.Add("duplicate address detection", arp, nft.MatchARPSource{}, accept)
	c.Add("announces another pod's address", arp, spoofed)
	c.Add("no address yet", ip, source("0.0.0.0/32"), accept)
	c.Add("", ip, own(nft.Source, inet.IPv4), spoofed)
	c.Add("link-local", ip, source("169.254.0.0/16"), accept)
	c.Add("", ip, spoofed)
	addRouters(c)
	c.Add("", ip6, nft.MatchProtocol{Protocol: icmpv6}, nft.GoTo(chainNeighbourDiscovery))
	addSources6(c)
	return c
}

// neighbourDiscovery judges the ICMPv6 packets of a known pod. An advertisement is
// judged by its target, not by its source. A duplicate address detection for another
// pod's address is dropped too: it could keep that pod from using the address.
func neighbourDiscovery() *nft.Chain {
	c := &nft.Chain{Name: chainNeighbourDiscovery}
	advertises := nft.MatchICMP{First: advertisement, Last: advertisement}
	c.Add("", ip6, advertises, portSource(nft.InputHardwareNeighbour, inet.IPv6), accept)
	c.Add("announces another pod's address", ip6, advertises, own(nft.Neighbour, inet.IPv6), spoofed)
	c.Add("announces another pod's address", ip6, advertises, nft.MatchNeighbourLinkLocal{Negate: true}, spoofed)
	solicits := nft.MatchICMP{First: solicitation, Last: solicitation}
	c.Add("", ip6, solicits, source("::/128"), portSource(nft.InputHardwareNeighbour, inet.IPv6), accept)
	c.Add("claims another pod's address", ip6, solicits, source("::/128"), own(nft.Neighbour, inet.IPv6), spoofed)
	addSources6(c)
	return c
}

// addRouters drops router advertisements and redirects: whoever accepts them sends its
// packets to the pod.
func addRouters(c *nft.Chain, but ...nft.Statement) {
	for _, kind := range []uint8{routerAdvertisement, redirect} {
		c.Add("no pod is a router", append(but, ip6, nft.MatchICMP{First: kind, Last: kind}, spoofed)...)
	}
}

// addSources6 accepts only a known pod's own source addresses.
func addSources6(c *nft.Chain) {
	c.Add("", ip6, portSource(nft.InputHardwareSource, inet.IPv6), accept)
	c.Add("", ip6, own(nft.Source, inet.IPv6), spoofed)
	c.Add("no address yet", ip6, source("::/128"), accept)
	c.Add("link-local", ip6, source("fe80::/10"), accept)
	c.Add("", ip6, spoofed)
}

// unknownPort judges frames of a port without a known pod: a pod not yet known, or
// another machine. It may use any address that belongs to no known pod; the IP hooks
// drop what comes from unknown addresses.
func unknownPort() *nft.Chain {
	c := &nft.Chain{Name: chainUnknownPort}
	c.Add("", nft.Lookup{Field: nft.HardwareSource, Set: setPodHardware}, spoofed)
	c.Add("", ip, own(nft.Source, inet.IPv4), spoofed)
	c.Add("", arp, own(nft.ARPSource, inet.IPv4), spoofed)
	c.Add("", ip6, own(nft.Source, inet.IPv6), spoofed)
	addRouters(c, nft.Lookup{Field: nft.InputInterface, Set: setUplinkPorts, Negate: true})
	c.Add("", ip6, nft.MatchICMP{First: advertisement, Last: advertisement}, own(nft.Neighbour, inet.IPv6), spoofed)
	c.Add("claims another pod's address", ip6, nft.MatchICMP{First: solicitation, Last: solicitation}, source("::/128"),
		own(nft.Neighbour, inet.IPv6), spoofed)
	return c
}

// Statements that several chains use.
var (
	arp, ip, ip6 = nft.MatchEtherType{Type: nft.EtherARP}, nft.MatchEtherType{Type: nft.EtherIP},
		nft.MatchEtherType{Type: nft.EtherIPv6}
	accept  = nft.Verdict{Kind: nft.Accept}
	spoofed = nft.GoTo(chainSpoofed)
)

func source(prefix string) nft.MatchPrefix {
	return nft.MatchPrefix{Field: nft.Source, Prefix: netip.MustParsePrefix(prefix)}
}

func portSource(field nft.Field, f inet.Family) nft.Lookup {
	return nft.Lookup{Field: field, Family: f, Set: perFamily(setPortSource, f)}
}

// own matches an address of a pod or of the node.
func own(field nft.Field, f inet.Family) nft.Lookup {
	return nft.Lookup{Field: field, Family: f, Set: perFamily(setPodAddress, f)}
}

// portComment stores the interface index of a port for the next process: the name may
// have been reused by then. Addresses from an annotation are not carried over: it may
// be gone by then.
func portComment(at program.Attachment) string {
	if at.Extra {
		return ""
	}
	return portPrefix + strconv.Itoa(at.PortIndex)
}

const portPrefix = "port "

// PortsInForce returns the addresses per port in a table of family bridge that an
// earlier process left; nil is none.
func PortsInForce(t *nft.Table) (list []program.Attachment) {
	if t == nil {
		return nil
	}
	for _, f := range inet.Families {
		s := t.Set(perFamily(setPortSource, f))
		if s == nil {
			continue
		}
		for _, e := range s.Entries {
			number, ours := strings.CutPrefix(e.Comment, portPrefix)
			index, err := strconv.Atoi(number)
			if ours && err == nil && e.Key.Addr.IsValid() {
				list = append(list, program.Attachment{Addr: e.Key.Addr, Port: e.Key.Iface, PortIndex: index,
					Hardware: e.Key.Hardware})
			}
		}
	}
	return list
}

// WithoutOwners returns the table without the addresses.
func WithoutOwners(t *nft.Table, addrs []netip.Addr) *nft.Table {
	var names []string
	for _, f := range inet.Families {
		names = append(names, perFamily(setPortSource, f), perFamily(setPodAddress, f))
	}
	return without(t, addrs, names)
}
