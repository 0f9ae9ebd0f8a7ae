// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// frame is a shot of a whole frame from one pod to another on its bridge.
func (w *world) frame(t *testing.T, name, from, to string, mac net.HardwareAddr, tags []uint16,
	p packet.Packet) stage.Shot {
	t.Helper()
	if !p.Src.IsValid() {
		p.Src = w.Addr(t, from, p.Dst.Is6())
	}
	p.Payload = w.Marks.Next()
	frame := packet.Ethernet(mac, w.Prober().HardwareAddr(from), tags, p.Bytes())
	return stage.Shot{Name: name + " from " + from, To: to, Mark: p.Payload,
		Send: func() error { return w.Prober().SendFrame(from, frame) }}
}

func (w *world) taggedSYN(t *testing.T, v6 bool, port uint16, tags ...uint16) stage.Shot {
	t.Helper()
	return w.frame(t, "tagged SYN", near, victim, w.Prober().HardwareAddr(victim), tags,
		packet.Packet{Dst: w.Addr(t, victim, v6), Proto: packet.TCP, Flags: packet.SYN, SrcPort: port, DstPort: 80,
			Window: 1000})
}

func TestTaggedFramesOnABridgeAreStopped(t *testing.T) {
	w := &world{stage.New(t, lab.Bridge, stage.Setup{})}
	stage.Families(t, func(t *testing.T, v6 bool) {
		w.Stopped(t, stage.Drops{ruleset.CounterIngress: 2}, w.taggedSYN(t, v6, 1000, 0), w.taggedSYN(t, v6, 1001, 5))
	})
}

func TestTaggedFramesOnABridgeArriveWithoutTheSetting(t *testing.T) {
	w := &world{stage.New(t, lab.Bridge, stage.Setup{})}
	stage.Check(t, w.NS(t, node1).SetSysctls([]netns.Sysctl{{Path: "bridge/bridge-nf-filter-vlan-tagged", Value: "0"}}))
	w.Arrive(t, w.taggedSYN(t, false, 1000, 0))
}

// Receivers remove any number of tags with VLAN 0, but br_netfilter looks behind only one: such frames
// enter no IP hook, so the table of family bridge drops them, and no other frames.
func TestStackedTagsOnABridgeAreStopped(t *testing.T) {
	w := &world{stage.New(t, lab.Bridge, stage.Setup{})}
	stage.Families(t, func(t *testing.T, v6 bool) {
		w.Stopped(t, stage.Drops{ruleset.CounterStacked: 3}, w.taggedSYN(t, v6, 1000, 0, 0), w.taggedSYN(t, v6, 1001, 0, 5),
			w.taggedSYN(t, v6, 1002, 0, 0, 0))
		w.Stopped(t, stage.Drops{ruleset.CounterIngress: 2}, w.taggedSYN(t, v6, 2100, 0), w.taggedSYN(t, v6, 2101, 5))
		w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, node1, victim, v6, packet.TCP, 80))
	})
}

// The guard setting does not matter: the table of family bridge always exists.
func TestStackedTagsAreStoppedWithoutTheGuard(t *testing.T) {
	w := &world{stage.New(t, lab.Bridge, stage.Setup{Args: []string{"--invalid-guard=off"}})}
	w.Stopped(t, stage.Drops{ruleset.CounterStacked: 1}, w.taggedSYN(t, false, 1000, 0, 0))
}
