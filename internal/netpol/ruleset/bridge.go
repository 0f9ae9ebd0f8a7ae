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

// On a bridge the IP hooks see the bridge and not the port that a packet came from,
// and they see no ARP and no neighbour discovery. So a table of family bridge binds
// each pod's addresses to its port where a frame comes in, before the bridge learns
// from it: what a pod sends has its hardware address and one of its own addresses, and
// it announces no others. It sees each frame of every bridge (ADR 0019 has the cost);
// the usual one is accepted by one look into a set.
const (
	// CounterPort counts what had, or announced, an address that its port does not have.
	CounterPort = "drop-port"
	// CounterStacked counts frames with stacked VLAN tags.
	CounterStacked = "drop-stacked-tags"

	chainFrames    = "frames"     // of bridges of pods, but for the usual ones
	chainBound     = "bound-port" // frames of a port with a known pod
	chainUnbound   = "unbound-port"
	chainDiscovery = "discovery" // its ICMPv6 packets
	chainForged    = "forged"
	setSpeaks      = "speaks" // with 4 or 6
	setOwned       = "owned"
	setHardware    = "hardware"
	setOwnedHW     = "owned-hardware"
	setBound       = "bound-ports"
	setOtherPorts  = "other-ports"
	setUplinkPorts = "uplink-ports"

	// priorityFrames is before br_netfilter shows a frame to the IP hooks.
	priorityFrames = -300
	// Types of ICMPv6 (RFC 4861, 4.2 to 4.5), and its number.
	routerAdvertisement, solicitation, advertisement, redirect = 134, 135, 136, 137
	icmpv6                                                     = 58
)

// RenderBridge returns the content of our table of family bridge; nil if no bridge is
// one of pods.
func RenderBridge(n program.Node) *nft.Table {
	if len(n.PodBridges) == 0 {
		return nil
	}
	t := &nft.Table{TableID: BridgeTable(), Counters: []string{CounterPort, CounterStacked}, Sets: bridgeSets(n),
		Chains: []*nft.Chain{atPort(), frames(), boundPort(), discovery(), unboundPort(),
			{Name: chainForged, Rules: []nft.Rule{dropped(CounterPort, "")}}}}
	t.Sort()
	return t
}

// bridgeSets returns who may say what at which port.
func bridgeSets(n program.Node) []*nft.Set {
	hardware := &nft.Set{Name: setHardware, Key: nft.InterfaceHardware, Comment: "which hardware address a port has"}
	owned := &nft.Set{Name: setOwnedHW, Key: nft.Hardware, Comment: "hardware addresses of pods"}
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
		{Name: setBound, Key: nft.Interface, Entries: interfaces(ports), Comment: "ports with a known pod"},
		{Name: setOtherPorts, Key: nft.Interface, Entries: interfaces(n.OtherPorts), Comment: "of other bridges, and of the node"},
		{Name: setUplinkPorts, Key: nft.Interface, Entries: interfaces(n.UplinkPorts), Comment: "lead out of the node"}}
	for _, f := range inet.Families {
		sets = append(sets, addressSets(n, f)...)
	}
	return sets
}

// addressSets returns which addresses belong to which port, and those that nobody
// else may have.
func addressSets(n program.Node, f inet.Family) []*nft.Set {
	v6 := f == inet.IPv6
	speaks := &nft.Set{Name: perFamily(setSpeaks, f), Key: either(v6, nft.InterfaceHardwareAddr6, nft.InterfaceHardwareAddr4),
		Comment: "which addresses a port has"}
	owned := &nft.Set{Name: perFamily(setOwned, f), Key: either(v6, nft.Addr6, nft.Addr4), Comment: "addresses of pods and of the node"}
	add := func(at program.Attachment, a netip.Addr, comment string) {
		key := nft.Key{Element: inet.Element{Addr: a}, Iface: at.Port, Hardware: at.Hardware}
		speaks.Entries = append(speaks.Entries, nft.Entry{Key: key, Comment: comment})
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
	speaks.Entries = oneEach(speaks.Entries)
	return []*nft.Set{speaks, owned}
}

// atPort meets every frame that comes in by a port of a bridge. The kernel shows the
// packet behind one VLAN tag here.
func atPort() *nft.Chain {
	c := &nft.Chain{Name: chainPrerouting, Base: &nft.Base{Type: "filter", Hook: "prerouting", Priority: priorityFrames}}
	c.Add("a pod as itself", ip, speaks(nft.InputHardwareSource, inet.IPv4), accept)
	c.Add("a pod as itself", ip6, nft.MatchProtocol{Protocol: icmpv6, Negate: true}, speaks(nft.InputHardwareSource, inet.IPv6), accept)
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setOtherPorts, Negate: true}, nft.GoTo(chainFrames))
	return c
}

// frames sorts what is not a packet of a known pod. A bridge shows packets behind one
// VLAN tag to the IP hooks, while a receiver takes off any number of tags with VLAN 0:
// nobody has a use for a tag behind one of those.
func frames() *nft.Chain {
	c := &nft.Chain{Name: chainFrames}
	for _, etherType := range []uint16{0x8100, 0x88a8} { // 802.1Q, 802.1ad
		c.Add("", nft.MatchTagBehind{EtherType: etherType}, nft.Count{Counter: CounterStacked}, nft.Verdict{Kind: nft.Drop})
	}
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setBound}, nft.GoTo(chainBound))
	c.Add("", nft.GoTo(chainUnbound))
	return c
}

// boundPort judges what a known pod sends: only its own addresses, and those that are
// nobody's while it has none yet (DHCP, duplicate address detection) or that every
// interface makes up for its link.
func boundPort() *nft.Chain {
	c := &nft.Chain{Name: chainBound}
	c.Add("another hardware address", nft.Lookup{Field: nft.InputHardware, Set: setHardware, Negate: true}, forged)
	c.Add("", arp, speaks(nft.InputHardwareARP, inet.IPv4), accept)
	c.Add("", arp, nft.MatchARPSource{}, speaks(nft.InputHardwareARPTarget, inet.IPv4), accept)
	c.Add("claims another's address", arp, nft.MatchARPSource{}, own(nft.ARPTarget, inet.IPv4), forged)
	c.Add("asks whether an address is free", arp, nft.MatchARPSource{}, accept)
	c.Add("announces another's address", arp, forged)
	c.Add("no address yet", ip, source("0.0.0.0/32"), accept)
	c.Add("", ip, own(nft.Source, inet.IPv4), forged)
	c.Add("made up for the link", ip, source("169.254.0.0/16"), accept)
	c.Add("", ip, forged)
	addRouters(c)
	c.Add("", ip6, nft.MatchProtocol{Protocol: icmpv6}, nft.GoTo(chainDiscovery))
	addSources6(c)
	return c
}

// discovery judges the ICMPv6 packets of a known pod. An advertisement counts by its
// target, not by its source. Who asks whether an address is free that another has could
// keep that one from using it.
func discovery() *nft.Chain {
	c := &nft.Chain{Name: chainDiscovery}
	advertises := nft.MatchICMP{First: advertisement, Last: advertisement}
	c.Add("", ip6, advertises, speaks(nft.InputHardwareNeighbour, inet.IPv6), accept)
	c.Add("announces another's address", ip6, advertises, own(nft.Neighbour, inet.IPv6), forged)
	c.Add("announces another's address", ip6, advertises, nft.MatchNeighbourLinkLocal{Negate: true}, forged)
	solicits := nft.MatchICMP{First: solicitation, Last: solicitation}
	c.Add("", ip6, solicits, source("::/128"), speaks(nft.InputHardwareNeighbour, inet.IPv6), accept)
	c.Add("claims another's address", ip6, solicits, source("::/128"), own(nft.Neighbour, inet.IPv6), forged)
	addSources6(c)
	return c
}

// addRouters drops what only routers say: who believes it sends his packets to the pod.
func addRouters(c *nft.Chain, but ...nft.Statement) {
	for _, kind := range []uint8{routerAdvertisement, redirect} {
		c.Add("no pod is a router", append(but, ip6, nft.MatchICMP{First: kind, Last: kind}, forged)...)
	}
}

// addSources6 lets a known pod have its own addresses only.
func addSources6(c *nft.Chain) {
	c.Add("", ip6, speaks(nft.InputHardwareSource, inet.IPv6), accept)
	c.Add("", ip6, own(nft.Source, inet.IPv6), forged)
	c.Add("no address yet", ip6, source("::/128"), accept)
	c.Add("made up for the link", ip6, source("fe80::/10"), accept)
	c.Add("", ip6, forged)
}

// unboundPort judges what comes in by a port with no known pod: a pod that nobody has
// told us of yet, or another machine. It may have every address that is nobody else's;
// the IP hooks close what no known pod has.
func unboundPort() *nft.Chain {
	c := &nft.Chain{Name: chainUnbound}
	c.Add("", nft.Lookup{Field: nft.HardwareSource, Set: setOwnedHW}, forged)
	c.Add("", ip, own(nft.Source, inet.IPv4), forged)
	c.Add("", arp, own(nft.ARPSource, inet.IPv4), forged)
	c.Add("", ip6, own(nft.Source, inet.IPv6), forged)
	addRouters(c, nft.Lookup{Field: nft.InputInterface, Set: setUplinkPorts, Negate: true})
	c.Add("", ip6, nft.MatchICMP{First: advertisement, Last: advertisement}, own(nft.Neighbour, inet.IPv6), forged)
	c.Add("claims another's address", ip6, nft.MatchICMP{First: solicitation, Last: solicitation}, source("::/128"),
		own(nft.Neighbour, inet.IPv6), forged)
	return c
}

// What the chains say again and again.
var (
	arp, ip, ip6 = nft.MatchEtherType{Type: nft.EtherARP}, nft.MatchEtherType{Type: nft.EtherIP}, nft.MatchEtherType{Type: nft.EtherIPv6}
	accept       = nft.Verdict{Kind: nft.Accept}
	forged       = nft.GoTo(chainForged)
)

func source(prefix string) nft.MatchPrefix {
	return nft.MatchPrefix{Field: nft.Source, Prefix: netip.MustParsePrefix(prefix)}
}

func speaks(field nft.Field, f inet.Family) nft.Lookup {
	return nft.Lookup{Field: field, Family: f, Set: perFamily(setSpeaks, f)}
}

// own matches an address that somebody has.
func own(field nft.Field, f inet.Family) nft.Lookup {
	return nft.Lookup{Field: field, Family: f, Set: perFamily(setOwned, f)}
}

// portComment keeps the index of a port's interface for the next process: a name may
// be another interface's by then. What an annotation gives is not taken over: it may be
// gone by then.
func portComment(at program.Attachment) string {
	if at.Extra {
		return ""
	}
	return portPrefix + strconv.Itoa(at.PortIndex)
}

const portPrefix = "port "

// PortsInForce returns what a table of family bridge that an earlier process left says
// about which address is at which port; nil is none.
func PortsInForce(t *nft.Table) (list []program.Attachment) {
	if t == nil {
		return nil
	}
	for _, f := range inet.Families {
		s := t.Set(perFamily(setSpeaks, f))
		if s == nil {
			continue
		}
		for _, e := range s.Entries {
			number, ours := strings.CutPrefix(e.Comment, portPrefix)
			index, err := strconv.Atoi(number)
			if ours && err == nil && e.Key.Addr.IsValid() {
				list = append(list, program.Attachment{Addr: e.Key.Addr, Port: e.Key.Iface, PortIndex: index, Hardware: e.Key.Hardware})
			}
		}
	}
	return list
}

// WithoutOwners returns the table in which nobody has the addresses.
func WithoutOwners(t *nft.Table, addrs []netip.Addr) *nft.Table {
	var names []string
	for _, f := range inet.Families {
		names = append(names, perFamily(setSpeaks, f), perFamily(setOwned, f))
	}
	return without(t, addrs, names)
}
