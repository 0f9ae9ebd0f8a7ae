// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// eachOwner runs a test about the owner of an address everywhere, and on bridges also with the base chains
// for unknown pods that are open: in every run on the lab's, in a long one on the plugin's too.
func eachOwner(t *testing.T, test func(t *testing.T, w *world)) {
	everywhere(t, stage.Setup{}, test)
	s := stage.Setup{Args: []string{"--datapath=nat", "--unknown-pods=open"}}
	if soak.Long() {
		s.CNIBin = plugins(t)
	}
	for _, wiring := range bridges(s) {
		t.Run("unknown pods open/"+string(wiring), func(t *testing.T) { test(t, &world{stage.New(t, wiring, s)}) })
	}
}

// across returns the hardware address to which a pod sends its frames for an endpoint: its own on the same
// bridge, else that of the pod's node on the pod's link.
func (w *world) across(t *testing.T, from, to string) net.HardwareAddr {
	t.Helper()
	sender, receiver := w.Endpoint(t, from), w.Endpoint(t, to)
	device := sender.HostDevice
	if w.Wiring == lab.Bridge {
		if receiver.Kind == lab.PodEndpoint && receiver.Node == sender.Node {
			return w.Prober().HardwareAddr(to)
		}
		device = lab.BridgeName
	}
	link, err := w.Handle(t, sender.Node).LinkByName(device)
	stage.Check(t, err)
	return link.Attrs().HardwareAddr
}

// reaches reports whether a SYN with a spoofed source arrives, by the sender's routes or in a frame that
// needs none.
func (w *world) reaches(t *testing.T, from string, src netip.Addr, to string) bool {
	t.Helper()
	p := packet.Packet{Src: src, Dst: w.Addr(t, to, src.Is6()), Proto: packet.TCP, Flags: packet.SYN, SrcPort: 999,
		DstPort: 80, Window: 1000}
	shot := w.frame(t, "SYN as "+src.String(), from, to, w.across(t, from, to), nil, p)
	stage.Fire(t, []stage.Shot{shot})
	return w.passes(t, from, src, p.Dst) || w.Taps[to].Saw(t, shot.Mark)
}

// filterReversePaths makes a node drop packets whose source is not reached by the interface that they come
// from, until the test ends: by the kernel's setting, which is for IPv4 only, or by a rule.
func (w *world) filterReversePaths(t *testing.T, node string, v6 bool) {
	t.Helper()
	if !v6 {
		stage.Check(t, w.NS(t, node).SetSysctls([]netns.Sysctl{{Path: "ipv4/conf/all/rp_filter", Value: "1"}}))
		return
	}
	o := w.other(t, node)
	o.add("rpfilter", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true}, // "fib saddr . iif oif"
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})
	stage.Check(t, o.conn.Flush())
	t.Cleanup(func() { o.delete(t) })
}
