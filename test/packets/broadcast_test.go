// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// A DHCP server answers a client without an address by broadcast. The node's own server reaches isolated
// pods, like all traffic from the node. A server in a pod does not, and it reaches no pod on a bridge with
// an isolated one.
func TestADHCPAnswerComesFromTheNodeOnly(t *testing.T) {
	for _, d := range []string{"nat", "filter"} {
		t.Run(d, func(t *testing.T) {
			w := &world{stage.New(t, lab.Bridge, stage.Setup{Args: []string{"--datapath=" + d}})}
			w.denyAll(t)
			broadcast := netip.MustParseAddrPort("255.255.255.255:68")
			server := w.udp(t, node1, netip.MustParseAddrPort("0.0.0.0:67"), netip.AddrPort{})
			option(t, server, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
			w.bindTo(t, server, lab.BridgeName)
			mark := w.Marks.Next()
			send(t, server, mark, broadcast)
			for _, pod := range []string{victim, jailed, open} {
				if !w.Taps[pod].Await(t, mark) {
					t.Errorf("the node's answer did not arrive at %s", pod)
				}
			}
			answer := packet.Packet{Src: w.Addr(t, near, false), Dst: broadcast.Addr(), Proto: packet.UDP,
				SrcPort: 67, DstPort: 68, Payload: w.Marks.Next()}
			frame := packet.Ethernet(net.HardwareAddr{255, 255, 255, 255, 255, 255}, w.Prober().HardwareAddr(near), nil, answer.Bytes())
			w.Stopped(t, stage.Drops{ruleset.CounterUnknownPod: 1}, stage.Shot{Name: "a pod's answer", To: victim, Mark: answer.Payload,
				Send: func() error { return w.Prober().SendFrame(near, frame) }})
		})
	}
}
