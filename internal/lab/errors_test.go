// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
)

// A probe of UDP is answered by an ICMP error, and kernels send few of those: in older
// ones all namespaces of a machine share one limit, which is not the lab's to change.
// Newer ones have that limit in each namespace, where it can be set low; with an older
// kernel this test meets the shared one.
func TestEveryProbeIsAnsweredWhateverTheLimitOfErrors(t *testing.T) {
	const probes = 2000 // of each family; kernels allow 1000 in a second, at most 50 at once
	b := newBed(t, lab.Config{Wiring: lab.Routed, Nodes: []string{"node1"}})
	b.pod("x/a", "node1", "10.244.1.5", "fd00:244:1::5")
	b.pod("x/b", "node1", "10.244.1.6", "fd00:244:1::6")
	low := []netns.Sysctl{{Path: "ipv4/icmp_msgs_per_sec", Value: "1", Optional: true},
		{Path: "ipv4/icmp_msgs_burst", Value: "1", Optional: true}}
	for _, to := range []string{"x/b", "node1"} {
		if err := b.find(to).NS.SetSysctls(low); err != nil {
			t.Fatal(err)
		}
		for _, addr := range b.find(to).Addrs {
			if addr.IsLinkLocalUnicast() {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", to, addr), func(t *testing.T) { b.allAnswered(t, addr, probes) })
		}
	}
}

// allAnswered sends probes of UDP from x/a and wants an answer to each that arrived.
func (b *bed) allAnswered(t *testing.T, dst netip.Addr, n int) {
	t.Helper()
	b.prober.Reset()
	var ids []uint32
	var batch []probe.Probe
	for range n {
		id := b.prober.NextID()
		ids, batch = append(ids, id), append(batch, probe.Probe{ID: id, Proto: packet.UDP, From: "x/a", Dst: dst, DstPort: 9})
	}
	if err := b.prober.Send(batch); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	out, err := b.prober.Collect(t.Context(), ids, nil, deadline)
	if err != nil || len(out.Missing) > 0 {
		t.Fatalf("%d of %d did not arrive (%v)", len(out.Missing), n, err)
	}
	if missing := b.prober.WaitReplies(t.Context(), ids, deadline); len(missing) > 0 {
		t.Errorf("%d of %d arrived and were not answered", len(missing), n)
	}
}
