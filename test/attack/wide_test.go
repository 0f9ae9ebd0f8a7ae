// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Policies for "the outside, but no pods", as they are commonly written, and for link-local addresses by
// name.
const (
	outside   = `[{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}, {ipBlock: {cidr: "::/0", except: ["fd00:244::/32"]}}]`
	linkLocal = `[{ipBlock: {cidr: 169.254.0.0/16}}, {ipBlock: {cidr: "fe80::/10"}}]`
	// many has more blocks than a rule spells out: they become a set.
	many = `[{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16, 20.0.0.0/24, 20.0.2.0/24, 20.0.4.0/24, 20.0.6.0/24, 20.0.8.0/24, 20.0.10.0/24, 20.0.12.0/24]}},
 {ipBlock: {cidr: "::/0", except: ["fd00:244::/32", "2001:db8:1::/64", "2001:db8:3::/64", "2001:db8:5::/64", "2001:db8:7::/64", "2001:db8:9::/64", "2001:db8:b::/64", "2001:db8:d::/64"]}}]`
)

// nobodys is an unassigned address of one link.
func nobodys(w *world, t *testing.T, pod string, v6 bool) netip.Addr {
	t.Helper()
	if v6 {
		return w.podLocal(t, pod).addr
	}
	return netip.MustParseAddr("169.254.7.7")
}

// straight is a shot in a frame to a pod on the same bridge, or to the pod's node.
func (w *world) straight(t *testing.T, name, from, to string, p packet.Packet) stage.Shot {
	t.Helper()
	return w.frame(t, name, from, to, w.across(t, from, to), nil, p)
}

// linkLocalTo is a packet to a pod from a link-local address of another one.
func (w *world) linkLocalTo(t *testing.T, from, to string, v6 bool) stage.Shot {
	t.Helper()
	p := packet.Packet{Src: nobodys(w, t, from, v6), Dst: w.Addr(t, to, v6), Proto: packet.UDP, SrcPort: 7000, DstPort: 80}
	return w.straight(t, "link-local", from, to, p)
}

func TestALinkLocalAddressOfAPodIsNotOutside(t *testing.T) {
	everywhere(t, stage.Setup{}, func(t *testing.T, w *world) {
		for name, peers := range map[string]string{"except": outside, "set": many} {
			w.Enforce(t, stage.Policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: `+peers+`}]`))
			t.Run(name, func(t *testing.T) {
				stage.Families(t, func(t *testing.T, v6 bool) {
					w.Allowed(t, w.Ask(t, out, victim, v6, packet.UDP, 80))
					want := stage.Drops{ruleset.CounterIngress: 1}
					if v6 && w.Wiring == lab.Routed {
						want = stage.Drops{} // the kernel itself forwards none of these
					}
					w.Stopped(t, want, w.linkLocalTo(t, near, victim, v6))
				})
			})
		}
		w.Enforce(t, stage.Policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: `+linkLocal+`}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			if !v6 || w.Wiring == lab.Bridge {
				w.Arrive(t, w.linkLocalTo(t, near, victim, v6))
			}
		})
	})
}

// Beyond the network between nodes the owner of a link-local address cannot be determined: its packets must
// not get there.
func TestALinkLocalAddressOfAPodDoesNotLeaveItsNode(t *testing.T) {
	for _, unknown := range []string{"closed", "open"} {
		t.Run(unknown, func(t *testing.T) {
			everywhere(t, stage.Setup{Args: []string{"--unknown-pods=" + unknown}}, func(t *testing.T, w *world) {
				w.Enforce(t, stage.Policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: `+outside+`}]`))
				stage.Families(t, func(t *testing.T, v6 bool) {
					want := stage.Drops{ruleset.CounterSpoofed: 1}
					if v6 {
						want = stage.Drops{} // the kernel itself forwards none of these
					}
					w.Stopped(t, want, w.linkLocalTo(t, far, victim, v6))
				})
			})
		})
	}
}

// A packet from the unspecified address is a broadcast (DHCP), or has no owner.
func TestNoAddressIsNotOutside(t *testing.T) {
	everywhere(t, stage.Setup{}, func(t *testing.T, w *world) {
		if w.Wiring != lab.Bridge {
			return // the kernel forwards no such packet
		}
		w.Enforce(t, stage.Policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: `+outside+`}]`))
		p := packet.Packet{Src: netip.IPv4Unspecified(), Dst: w.Addr(t, victim, false), Proto: packet.UDP, SrcPort: 68, DstPort: 80}
		w.Stopped(t, stage.Drops{ruleset.CounterSpoofed: 1}, w.straight(t, "0.0.0.0", near, victim, p))
	})
}

func TestALinkLocalNeighbourIsNotOutside(t *testing.T) {
	everywhere(t, stage.Setup{}, func(t *testing.T, w *world) {
		node := w.dnsOfTheNode(t)
		metadata := w.metadata(t)
		asked := []trial.Question{
			{From: jailed, To: node1, Src: w.Addr(t, jailed, false), Dst: node, Proto: packet.UDP, Port: 53},
			{From: jailed, To: out, Src: w.Addr(t, jailed, false), Dst: metadata, Proto: packet.TCP, Port: 80}}
		port := uint16(7000) // a different one for each: existing connections get no new verdict
		for name, peers := range map[string]string{"except": outside, "set": many, "link-local": linkLocal} {
			port++
			w.Enforce(t, stage.Policy("jailed", "jailed", `policyTypes: [Egress], egress: [{to: `+peers+`}]`))
			t.Run(name, func(t *testing.T) {
				to := w.nodeLocal(t, jailed)
				link := w.podLocal(t, jailed).index
				w.Allowed(t, append(asked, trial.Question{From: jailed, To: node1, Src: w.Addr(t, jailed, true),
					Dst: to.addr.WithZone(strconv.Itoa(link)), Proto: packet.TCP, Port: 80})...)
				if w.Wiring != lab.Bridge { // the node has no route to it, in IPv6 one back to the sender
					want := stage.Drops{}
					if name != "link-local" {
						want = stage.Drops{ruleset.CounterEgress: 1}
					}
					w.Stopped(t, want, w.linkLocalNeighbours(t, port)...)
					return
				}
				shots := w.linkLocalNeighbours(t, port, node, metadata)
				if name == "link-local" {
					w.Arrive(t, shots...)
					return
				}
				w.Stopped(t, stage.Drops{ruleset.CounterEgress: uint64(len(shots))}, shots...)
			})
		}
		w.Enforce(t, stage.Usual()...)
		w.Denied(t, ruleset.CounterEgress, asked...)
	})
}

// linkLocalNeighbours are packets to a pod on the same bridge that took link-local addresses: unassigned
// ones, and those of the node and of the metadata server.
func (w *world) linkLocalNeighbours(t *testing.T, port uint16, taken ...netip.Addr) (shots []stage.Shot) {
	t.Helper()
	for _, dst := range append(taken, nobodys(w, t, open, false), nobodys(w, t, open, true)) {
		p := packet.Packet{Src: w.Addr(t, jailed, dst.Is6()), Dst: dst, Proto: packet.UDP, SrcPort: port, DstPort: 53}
		shots = append(shots, w.straight(t, "to "+dst.String(), jailed, open, p))
	}
	return shots
}

// dnsOfTheNode gives node1 the address of a node-local DNS cache.
func (w *world) dnsOfTheNode(t *testing.T) netip.Addr {
	t.Helper()
	h := w.Handle(t, node1)
	lo, err := h.LinkByName("lo")
	stage.Check(t, err)
	stage.Check(t, h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(169, 254, 20, 10), Mask: net.CIDRMask(32, 32)}}))
	return netip.MustParseAddr("169.254.20.10")
}

// metadata gives the external host the address of a cloud's metadata server, and node1 the route to it.
func (w *world) metadata(t *testing.T) netip.Addr {
	t.Helper()
	a := netip.MustParseAddr("169.254.169.254")
	single := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
	there, here := w.Handle(t, out), w.Handle(t, node1)
	lo, err := there.LinkByName("lo")
	stage.Check(t, err)
	stage.Check(t, there.AddrAdd(lo, &netlink.Addr{IPNet: single}))
	list, err := here.RouteGet(w.Addr(t, out, false).AsSlice())
	stage.Check(t, err)
	stage.Check(t, here.RouteAdd(&netlink.Route{Dst: single, Gw: list[0].Gw, LinkIndex: list[0].LinkIndex}))
	return a
}
