// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/scenarios"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/service"
)

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func parseRoute(text string) (net.IP, *net.IPNet, error) { return net.ParseCIDR(text) }

// tries is how often a packet is sent, at most, until every backend was met. That one of four is not met by
// chance happens once in 10²⁵ times.
const tries = 200

// verify sends a packet until it has met every backend that it may, and wants nothing else to happen.
func (n *node) verify(t fataler, p oracle.Packet, want oracle.Answer) (sent int) {
	t.Helper()
	if p.FromNode && slices.Contains(n.addrs, p.Src) {
		want.Backends = slices.Clone(want.Backends) // the node's address in place of the node's address
		for i := range want.Backends {
			want.Backends[i].SourceKept = true
		}
	}
	left := map[oracle.Backend]bool{}
	for _, b := range want.Backends {
		left[b] = !slices.Contains(n.addrs, b.To.Addr())
	}
	here := len(left) > 0 && slices.ContainsFunc(want.Backends, func(b oracle.Backend) bool { return !left[b] })
	for sent = 1; ; sent++ {
		got := n.send(t, p)
		switch {
		case got.here && (here || want.Verdict == oracle.NotOurs && n.isLocal(t, p.Dst)):
		case got.here, got.verdict != want.Verdict:
			t.Fatalf("%+v: %+v, want %+v\n%s", p, got, want, n.tables[inet.FamilyOf(p.Dst)].program)
		case want.Verdict == oracle.Forward:
			if !slices.Contains(want.Backends, got.backend) {
				t.Fatalf("%+v: to %v, want one of %v", p, got.backend, want.Backends)
			}
			left[got.backend] = false
		}
		missing := false
		for _, m := range left {
			missing = missing || m
		}
		if !missing || want.Sticky > 0 {
			return sent // a client that comes back to its backend never meets the others
		}
		if sent == tries {
			t.Fatalf("%+v: did not meet %v", p, left)
		}
	}
}

// The scenarios of testdata/services, node by node, in one kernel: each changes the tables of the one
// before.
func TestScenariosInTheKernel(t *testing.T) { playAll(t, newNode(t)) }

// playAll plays all scenarios on a node.
func playAll(t *testing.T, n *node) {
	t.Helper()
	w, list, err := scenarios.Read(os.DirFS("../../testdata/services"))
	check(t, err)
	packets := 0
	for i := range w.Nodes {
		judge := &w.Nodes[i]
		for _, s := range list {
			t.Run(judge.Name+"/"+s.File+"/"+s.Name, func(t *testing.T) {
				packets += n.play(t, w, s, judge)
			})
		}
	}
	if packets < len(list) {
		t.Errorf("only %d packets", packets)
	}
	t.Logf("%d packets", packets)
}

// play brings a scenario into the kernel and sends its packets that one node judges.
func (n *node) play(t *testing.T, w *scenarios.World, s *scenarios.Scenario, judge *scenarios.Node) (sent int) {
	t.Helper()
	snap, _, err := w.Snapshot(s.Objects)
	check(t, err)
	set := w.Settings(s, judge)
	n.become(t, set.OwnAddresses)
	m, _ := service.Resolve(snap, service.Settings(set))
	n.apply(t, m)
	for _, p := range s.Packets {
		asked, err := w.Ask(p)
		check(t, err)
		if asked.Node.Name != judge.Name {
			continue
		}
		packet := oracle.Packet{Protocol: cluster.TCP, Src: asked.Src, Dst: asked.Dst, Port: p.Port, FromNode: asked.FromNode}
		if p.Protocol != "" {
			packet.Protocol, _ = cluster.ParseProtocol(p.Protocol)
		}
		answer := oracle.Judge(snap, set, packet)
		if got := w.Line(answer); got != p.Expected() {
			t.Fatalf("%+v: the oracle says %s", p, got)
		}
		sent += n.verify(t, packet, answer)
	}
	return sent
}
