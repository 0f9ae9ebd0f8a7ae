// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// flips is a program that closes the victim and the jailed pod by chains whose names and rules differ in
// every version, as after a policy change.
func flips(version int) *program.Program {
	var rules []program.Rule
	for i := range 50 {
		port := uint16(1 + i + version%1000)
		rules = append(rules, program.Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: port, Last: port},
			Block: program.Block{CIDR: netip.MustParsePrefix("198.51.100.0/24")}})
	}
	in, out := fmt.Sprintf("ingress4-v%d", version), fmt.Sprintf("egress4-v%d", version)
	return &program.Program{
		Pods: []program.Pod{{Addr: cast()[0].addrs[0], Name: victim, Ingress: in},
			{Addr: cast()[2].addrs[0], Name: jailed, Egress: out}},
		Chains: []*program.Chain{{Name: out, Direction: program.Egress, Family: inet.IPv4, Rules: rules},
			{Name: in, Direction: program.Ingress, Family: inet.IPv4, Rules: rules}},
	}
}

// The kernel commits a transaction as a whole, but a packet in flight at that moment may see the old rules
// and the new elements: no change may open a pod for it.
func TestAPacketInTheMiddleOfACommitIsNotLetThrough(t *testing.T) {
	w := newWorld(t, lab.Routed)
	table := ruleset.Render(flips(0), program.Node{})
	check(t, w.table.Commit(nft.Diff(nil, table)))
	tr := &traffic{w: w, taps: []*tap{newTap(t, victim, w.ns(victim)), newTap(t, stranger, w.ns(stranger))}}
	tr.lane(stranger, victim, 0)
	tr.lane(jailed, stranger, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, l := range tr.closed {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_ = l.send(n, packet.Packet{Proto: packet.TCP, Flags: packet.SYN, Window: markWindow, Seq: uint32(n)}, &tr.sent)
			}
		})
	}
	commits := 0
	for end := time.Now().Add(time.Duration(soak.Times(2, 60)) * time.Second); time.Now().Before(end); commits++ {
		next := ruleset.Render(flips(commits+1), program.Node{})
		check(t, w.table.Commit(nft.Diff(table, next)))
		table = next
	}
	cancel()
	running.Wait()
	t.Logf("%d packets during %d commits, %d arrived", tr.sent.Load(), commits, tr.closedEnd())
}
