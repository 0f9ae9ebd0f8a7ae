// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/service"
)

// Random clusters change step by step, the index follows, and the kernel gets the difference. What packets
// meet is what the oracle says.
func TestRandomPacketsInTheKernel(t *testing.T) { playRandom(t, newNode(t)) }

// playRandom changes random clusters on a node.
func playRandom(t *testing.T, n *node) {
	t.Helper()
	ctx := t.Context()
	met := map[oracle.Verdict]int{}
	rapid.Check(t, func(t *rapid.T) {
		w, set := &gen.Services{}, gen.ServiceSettings(t)
		n.become(t, set.OwnAddresses)
		x := service.NewIndex(service.Settings(set))
		for range rapid.SampledFrom([]int{3, 2, 1}).Draw(t, "times") {
			for range rapid.SampledFrom([]int{15, 10, 5, 1}).Draw(t, "steps") {
				check(t, x.Apply(ctx, w.Change(t)))
			}
			n.become(t, set.OwnAddresses) // old connections keep their backend
			n.apply(t, x.Model())
			snap := w.Snapshot(t)
			for i, p := range chosen(gen.Packets(t)) {
				want := oracle.Judge(snap, set, oracle.Packet(p))
				if n.ipvs != nil && n.cannotMean(t, p, want) {
					continue
				}
				if want.Verdict != oracle.Forward && i%8 > 0 {
					continue // most packets are nobody's, or to no Service
				}
				n.verify(t, oracle.Packet(p), want)
				met[want.Verdict]++
			}
		}
	})
	for _, v := range []oracle.Verdict{oracle.NotOurs, oracle.Forward, oracle.Reject, oracle.Drop} {
		if met[v] < 10 {
			t.Errorf("only %d packets of %v", met[v], met)
		}
	}
	t.Logf("packets by verdict: %v", met)
}

// chosen leaves out what a client cannot send: a pod does not have the node's address, and from outside
// nothing arrives for a loopback address.
func chosen(all []gen.ServicePacket) []gen.ServicePacket {
	own := []bool{true, false}
	return slices.DeleteFunc(all, func(p gen.ServicePacket) bool {
		isOwn := slices.ContainsFunc(own, func(v4 bool) bool { return p.Src == gen.NodeAddr("one", v4) })
		return p.FromNode != isOwn || p.Dst.IsLoopback()
	})
}
