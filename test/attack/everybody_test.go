// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// secondPort is the attacker's other way into its bridge.
const secondPort = "eth1"

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	group     = net.HardwareAddr{0x01, 0x00, 0x5e, 0x00, 0x00, 0x01}
	reserved  = net.HardwareAddr{0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e} // for the bridge itself
	unused    = net.HardwareAddr{0x02, 0x66, 0x66, 0x66, 0x66, 0x66}
)

// eachClosedness runs a test on bridged worlds with every set of base chains.
func eachClosedness(t *testing.T, test func(t *testing.T, w *world)) {
	eachBridge(t, func(t *testing.T, w *world) {
		w.Enforce(t, stage.Policy("jailed", "jailed", `policyTypes: [Ingress, Egress]`))
		w.addPort(t)
		test(t, w)
	})
}

// A bridge also passes a broadcast frame to its own node, where the kernel (since 6.8) keeps the connection
// even if no pod received the packet. The receiver's next packet would then be a reply. So a pod's unicast
// address in such a frame must leave no entry, and neither must the other ways to make a bridge flood.
func TestAFrameToEverybodyIsTheBeginningOfNothing(t *testing.T) {
	eachClosedness(t, func(t *testing.T, w *world) {
		bridge := w.bridgeAddr(t)
		tests := []struct {
			name string
			port string
			mac  net.HardwareAddr
			want stage.Drops
		}{
			{"broadcast", "eth0", broadcast, stage.Drops{ruleset.CounterBroadcast: 1}},
			{"to a group", "eth0", group, stage.Drops{ruleset.CounterBroadcast: 1}},
			{"to the bridge's group", "eth0", reserved, stage.Drops{ruleset.CounterBroadcast: 1}},
			{"to an unused address", "eth0", unused, stage.Drops{ruleset.CounterIngress: 5}}, // on five ports
			{"to the bridge", "eth0", bridge, stage.Drops{ruleset.CounterIngress: 1}},
			{"broadcast, from the second port", secondPort, broadcast, stage.Drops{ruleset.CounterSpoofedFrame: 1}},
			{"to an unused address, from the second port", secondPort, unused, stage.Drops{ruleset.CounterSpoofedFrame: 1}},
			{"to the bridge, from the second port", secondPort, bridge, stage.Drops{ruleset.CounterSpoofedFrame: 1}},
		}
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				stage.Families(t, func(t *testing.T, v6 bool) {
					for _, proto := range []packet.Protocol{packet.UDP, packet.TCP} {
						port := uint16(7000 + i)
						first := w.first(t, jailed, v6, proto, port)
						w.Stopped(t, tt.want, w.through(t, tt.port, tt.mac, jailed, first))
						w.Stopped(t, stage.Drops{ruleset.CounterEgress: 1}, w.answer(t, jailed, first))
						w.Stopped(t, stage.Drops{ruleset.CounterIngress: 1}, w.Raw(t, "the next packet", near, jailed, first))
					}
				})
			})
		}
	})
}

// A program captures on the bridge (tcpdump), so its node also sees frames to others.
func TestALookAtTheBridgeBeginsNothing(t *testing.T) {
	w := &world{stage.New(t, lab.Bridge, stage.Setup{})}
	w.Enforce(t, stage.Policy("jailed", "jailed", `policyTypes: [Ingress, Egress]`))
	h := w.Handle(t, node1)
	bridge, err := h.LinkByName(lab.BridgeName)
	stage.Check(t, err)
	stage.Check(t, h.SetPromiscOn(bridge))
	stage.Families(t, func(t *testing.T, v6 bool) {
		for i, mac := range []net.HardwareAddr{unused, w.Prober().HardwareAddr(jailed)} {
			first := w.first(t, jailed, v6, packet.UDP, uint16(7300+i))
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: []uint64{4, 1}[i]}, w.through(t, "eth0", mac, jailed, first))
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 1}, w.answer(t, jailed, first))
		}
	})
}

// The same with the address of a Service, which belongs to no pod when the frame arrives.
func TestAServiceInAFrameToEverybodyIsTheBeginningOfNothing(t *testing.T) {
	eachClosedness(t, func(t *testing.T, w *world) {
		for _, proto := range []packet.Protocol{packet.UDP, packet.TCP} {
			w.serve(t, proto) // of the victim
			w.Enforce(t, stage.Policy("victim", "victim", `policyTypes: [Ingress, Egress]`))
			stage.Families(t, func(t *testing.T, v6 bool) {
				first := w.first(t, victim, v6, proto, 7100)
				first.Dst, first.DstPort = front(v6), 80
				counter := ruleset.CounterBroadcast
				if len(w.Setup.Args) > 1 {
					counter = ruleset.CounterIngress // translated, then addressed to the victim alone
				}
				w.Stopped(t, stage.Drops{counter: 1}, w.through(t, "eth0", broadcast, victim, first))
				first.Dst, first.DstPort = w.Addr(t, victim, v6), 8080
				w.Stopped(t, stage.Drops{ruleset.CounterEgress: 1}, w.answer(t, victim, first))
			})
		}
	})
}

// A broadcast to an address before a pod has it opens no connection to the pod.
func TestAFrameToEverybodyDoesNotWaitForAPod(t *testing.T) {
	for _, d := range []string{"nat", "filter"} {
		t.Run(d, func(t *testing.T) {
			w := &world{stage.New(t, lab.Bridge, stage.Setup{Args: []string{"--datapath=" + d}})}
			first := map[bool]packet.Packet{}
			for _, v6 := range []bool{false, true} {
				first[v6] = packet.Packet{Src: w.Addr(t, near, v6), Dst: stage.Pick(v6, "fd00:244:1::200", "10.244.1.200"), Proto: packet.UDP, SrcPort: 7200, DstPort: 7201}
				w.Stopped(t, stage.Drops{ruleset.CounterBroadcast: 1}, w.through(t, "eth0", broadcast, near, first[v6]))
			}
			w.wireNewcomer(t)
			stage.Families(t, func(t *testing.T, v6 bool) {
				w.Stopped(t, stage.Drops{ruleset.CounterSpoofed: 1}, w.answer(t, newcomer, first[v6]))
			})
		})
	}
}

// first is the first packet from the attacker to a pod.
func (w *world) first(t *testing.T, to string, v6 bool, proto packet.Protocol, port uint16) packet.Packet {
	t.Helper()
	return packet.Packet{Src: w.Addr(t, near, v6), Dst: w.Addr(t, to, v6), Proto: proto, Flags: packet.SYN, SrcPort: port, DstPort: port + 500, Window: 1000}
}

// answer is a packet from the receiver to the source of the packet: a first packet of its own, as any
// socket sends it.
func (w *world) answer(t *testing.T, from string, p packet.Packet) stage.Shot {
	t.Helper()
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	return w.Raw(t, fmt.Sprintf("%s on the way back", p.Proto), from, near, p)
}

// through is a shot of a frame from one of the attacker's two ports.
func (w *world) through(t *testing.T, device string, mac net.HardwareAddr, to string, p packet.Packet) stage.Shot {
	t.Helper()
	p.Payload = w.Marks.Next()
	frame := packet.Ethernet(mac, w.Prober().HardwareAddr(near), nil, p.Bytes())
	return stage.Shot{Name: fmt.Sprintf("%s to %s", p.Proto, mac), To: to, Mark: p.Payload, Send: func() error {
		return w.NS(t, near).Do(func() error { return sendFrame(device, frame) })
	}}
}

func sendFrame(device string, frame []byte) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket for frames: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing can be lost
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6})
}

// addPort gives the attacker a second interface on the same bridge.
func (w *world) addPort(t *testing.T) {
	t.Helper()
	h := w.Handle(t, node1)
	bridge, err := h.LinkByName(lab.BridgeName)
	stage.Check(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = "second", bridge.Attrs().Index, net.FlagUp
	stage.Check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: secondPort, PeerNamespace: netlink.NsFd(w.NS(t, near).FD())}))
	inside := w.Handle(t, near)
	link, err := inside.LinkByName(secondPort)
	stage.Check(t, err)
	// Linux would answer ARP for the address of one interface on the other, which is dropped.
	stage.Check(t, w.NS(t, near).SetSysctls([]netns.Sysctl{{Path: "ipv4/conf/all/arp_ignore", Value: "1"}}))
	stage.Check(t, inside.LinkSetUp(link))
}

// bridgeAddr is the hardware address of the node on its bridge.
func (w *world) bridgeAddr(t *testing.T) net.HardwareAddr {
	t.Helper()
	link, err := w.Handle(t, node1).LinkByName(lab.BridgeName)
	stage.Check(t, err)
	return link.Attrs().HardwareAddr
}
