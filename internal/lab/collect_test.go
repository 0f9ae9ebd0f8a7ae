// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
)

// dropUDP drops forwarded UDP on a node and returns how to read the counter.
func (b *bed) dropUDP(node string) func() (uint64, error) {
	b.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(b.Node(node).NS.FD()))
	if err != nil {
		b.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "test"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(packet.UDP)}},
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	if err := c.Flush(); err != nil {
		b.Fatal(err)
	}
	return func() (uint64, error) {
		rules, err := c.GetRules(table, chain)
		if err != nil {
			return 0, err
		}
		for _, e := range rules[0].Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				return counter.Packets, nil
			}
		}
		return 0, nil
	}
}

func TestCollectAccountsForEveryProbe(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Routed, Nodes: []string{"node1", "node2"}})
	b.small()
	var flows []flow
	for range 50 {
		for _, proto := range packet.Protocols {
			for _, dst := range b.find("y/c").Addrs {
				flows = append(flows, b.flow(b.find("x/a"), b.find("y/c"), dst, proto))
			}
		}
	}
	counter := b.dropUDP("node1")
	ids := b.send(flows)
	start := time.Now()
	out, err := b.prober.Collect(t.Context(), ids, counter, time.Now().Add(5*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Minute {
		t.Errorf("collecting took %v: it waited for the deadline", took)
	}
	var want []uint32
	for _, f := range flows {
		if f.Proto == packet.UDP {
			want = append(want, f.ID)
		}
	}
	if diff := cmp.Diff(probe.Outcome{Arrived: 300, Dropped: 100, Missing: want, Exact: true}, out); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

func TestCollectSaysWhatIsUnaccountedFor(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Routed, Nodes: []string{"node1"}})
	b.pod("x/a", "node1", "10.244.1.5")
	f := b.flow(b.find("x/a"), nil, netip.MustParseAddr("10.99.9.9"), packet.TCP)
	ids := b.send([]flow{f})
	out, err := b.prober.Collect(t.Context(), ids, nil, time.Now().Add(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(probe.Outcome{Missing: ids}, out); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	missing := b.prober.WaitReplies(t.Context(), ids, time.Now().Add(2*time.Second))
	if got := b.prober.Replies(f.ID); len(missing) > 0 || got[0].Kind != probe.NoRoute {
		t.Errorf("replies are %v, want that there is no route", got)
	}
}

func TestFramesPassAsTheyAre(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Bridge, Nodes: []string{"node1"}})
	from, to := b.pod("x/a", "node1", "10.244.1.5"), b.pod("x/b", "node1", "10.244.1.6")
	spoofed := netip.MustParseAddr("203.0.113.9")
	for _, tags := range [][]uint16{nil, {0}} {
		p := probe.Probe{ID: b.prober.NextID(), Proto: packet.UDP, From: from.Name, Src: spoofed, Dst: to.Addrs[0], SrcPort: 1, DstPort: 2}
		frame := packet.Ethernet(b.prober.HardwareAddr(to.Name), b.prober.HardwareAddr(from.Name), tags, p.Packet().Bytes())
		if err := b.prober.SendFrame(from.Name, frame); err != nil {
			t.Fatal(err)
		}
		if _, err := b.prober.Collect(t.Context(), []uint32{p.ID}, nil, time.Now().Add(2*time.Second)); err != nil {
			t.Fatal(err)
		}
		want := []probe.Arrival{{ID: p.ID, Endpoint: to.Name, Proto: packet.UDP,
			Src: netip.AddrPortFrom(spoofed, 1), Dst: netip.AddrPortFrom(to.Addrs[0], 2)}}
		if diff := cmp.Diff(want, b.prober.Arrived(p.ID), cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); diff != "" {
			t.Errorf("with tags %v (-want +got):\n%s", tags, diff)
		}
	}
}

func TestWhatABridgeFloodsDidNotArrive(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Bridge, Nodes: []string{"node1"}})
	from, to := b.pod("x/a", "node1", "10.244.1.5"), b.pod("x/b", "node1", "10.244.1.6")
	frame := func(dst net.HardwareAddr) uint32 {
		p := probe.Probe{ID: b.prober.NextID(), Proto: packet.UDP, From: from.Name, Src: from.Addrs[0], Dst: to.Addrs[0], SrcPort: 1, DstPort: 2}
		if err := b.prober.SendFrame(from.Name, packet.Ethernet(dst, b.prober.HardwareAddr(from.Name), nil, p.Packet().Bytes())); err != nil {
			t.Fatal(err)
		}
		return p.ID
	}
	// One socket sees both, in this order.
	flooded, addressed := frame(net.HardwareAddr{2, 9, 9, 9, 9, 9}), frame(b.prober.HardwareAddr(to.Name))
	if _, err := b.prober.Collect(t.Context(), []uint32{addressed}, nil, time.Now().Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := b.arrivedAt(addressed); !cmp.Equal(got, []string{to.Name}) {
		t.Errorf("the frame for %s arrived at %q", to.Name, got)
	}
	if got := b.arrivedAt(flooded); len(got) > 0 {
		t.Errorf("a frame for nobody arrived at %q", got)
	}
}

func TestAProbeCountsOnlyOnce(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Routed, Nodes: []string{"node1"}})
	b.pod("x/a", "node1", "10.244.1.5")
	f := b.flow(b.find("x/a"), nil, netip.MustParseAddr("172.30.0.11"), packet.TCP)
	b.send([]flow{f})
	if err := b.prober.Send([]probe.Probe{f.Probe}); err == nil {
		t.Error("a number was taken twice")
	}
	if err := b.prober.Send([]probe.Probe{{ID: b.prober.NextID(), From: "nobody", Dst: f.Dst}}); err == nil {
		t.Error("an unknown endpoint could send")
	}
}

// A counter that moves for somebody else's packet ends no wait: a packet that arrives a
// moment later is an arrival, and nothing is exact then.
func TestADropOfOthersEndsNoWait(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Routed, Nodes: []string{"node1", "node2"}})
	b.small()
	from, to := b.find("x/a"), b.find("y/c")
	f := b.flow(from, to, to.Addrs[0], packet.UDP)
	f.ID = b.prober.NextID()
	b.prober.Settle = time.Minute
	var sent bool
	others := func() (uint64, error) { // who looks at the counters has not seen the packet
		if !sent {
			sent = true
			b.send([]flow{f})
			for len(b.prober.Arrived(f.ID)) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		return 1, nil
	}
	out, err := b.prober.Collect(t.Context(), []uint32{f.ID}, others, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(probe.Outcome{Arrived: 1, Dropped: 1}, out, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}
