// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// shortMemory makes node1 delete a UDP entry after a second.
func (w *world) shortMemory(t *testing.T) {
	t.Helper()
	stage.Check(t, w.NS(t, node1).SetSysctls([]netns.Sysctl{{Path: "netfilter/nf_conntrack_udp_timeout", Value: "1"},
		{Path: "netfilter/nf_conntrack_udp_timeout_stream", Value: "1"}}))
}

// forgotten returns when node1 has no flow from one of the ports any more.
func (w *world) forgotten(t *testing.T, ports ...uint16) {
	t.Helper()
	h, end := w.Handle(t, node1), time.Now().Add(time.Minute)
	for w.knows(t, h, ports) {
		if time.Now().After(end) {
			t.Fatalf("node1 still knows a flow from one of the ports %d", ports)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) knows(t *testing.T, h *netlink.Handle, ports []uint16) bool {
	t.Helper()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := h.ConntrackTableList(netlink.ConntrackTable, family)
		stage.Check(t, err)
		for _, f := range flows {
			for _, p := range ports {
				if f.Forward.SrcPort == p {
					return true
				}
			}
		}
	}
	return false
}

func TestRepliesPassAndAfterTheEndOfAFlowWhoSpeaksFirstIsJudged(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		w.shortMemory(t)
		for _, v6 := range []bool{false, true} {
			inside, outside := w.at(t, victim, v6, 5000), w.at(t, near, v6, 6000)
			in, others := w.udp(t, victim, inside, netip.AddrPort{}), w.udp(t, near, outside, netip.AddrPort{})
			before := w.Counters(t)
			for range 2 { // the victim sends, and the reply passes although it accepts no connection
				send(t, in, []byte("question"), outside)
				receive(t, others)
				send(t, others, []byte("answer"), inside)
				receive(t, in)
			}
			w.Moved(t, "question and answer", before, stage.Drops{})
		}
		w.forgotten(t, 5000, 6000)
		for _, v6 := range []bool{false, true} {
			from := packet.Packet{Src: w.Addr(t, near, v6), Dst: w.Addr(t, victim, v6), Proto: packet.UDP, SrcPort: 6000,
				DstPort: 5000}
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 1}, w.Raw(t, "late answer", near, victim, from))
			from.Src, from.Dst, from.SrcPort, from.DstPort = from.Dst, from.Src, 5000, 6000
			w.Arrive(t, w.Raw(t, "question", victim, near, from))
			from.Src, from.Dst, from.SrcPort, from.DstPort = from.Dst, from.Src, 6000, 5000
			w.Arrive(t, w.Raw(t, "answer in time", near, victim, from))
		}
	})
}

// watch is another program's chain right after ours: it is entered as often as ours.
const watch = `table inet watch {
	counter walks { }
	chain postrouting {
		type nat hook postrouting priority -189
		udp dport 80 udp sport { 5100 } counter name walks
	}
}
`

// walks is how often the chain was entered.
func (w *world) walks(t *testing.T) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(w.run(t, node1, "", "nft", "list", "counter", "inet", "watch", "walks"), "packets ")
	number, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	stage.Check(t, err)
	return n
}

func TestAnUnansweredFlowIsJudgedOnceWhileItsEntryLives(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.shortMemory(t)
		w.load(t, node1, watch)
		statsd := func(v6 bool) []stage.Shot {
			var list []stage.Shot
			for range 10 {
				list = append(list, w.Raw(t, "measurement", peer, victim,
					packet.Packet{Dst: w.Addr(t, victim, v6), Proto: packet.UDP, SrcPort: 5100, DstPort: 80}))
			}
			return list
		}
		for _, v6 := range []bool{false, true} {
			w.udp(t, victim, w.at(t, victim, v6, 80), netip.AddrPort{}) // receives all and sends nothing
			w.Arrive(t, statsd(v6)...)
		}
		if n := w.walks(t); n != 2 {
			t.Errorf("20 packets of 2 flows were judged %d times, want 2", n)
		}
		w.forgotten(t, 5100)
		for _, v6 := range []bool{false, true} {
			w.Arrive(t, statsd(v6)...)
		}
		if n := w.walks(t); n != 4 {
			t.Errorf("after the entries' end the flows were judged %d times in all, want 4", n)
		}
	})
}

// Resolvers send queries for both families at once from one port. Both packets may be in flight before
// either has an entry.
func TestTwoPacketsOfANewFlowAtOnceBothArrive(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.serve(t, packet.UDP)
		w.Enforce(t, stage.Policy("dns", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: 8080, protocol: UDP}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			before := w.Counters(t)
			w.udp(t, victim, w.at(t, victim, v6, 8080), netip.AddrPort{})
			for _, to := range []netip.AddrPort{w.at(t, victim, v6, 8080), front(v6)} {
				for i := range uint16(100) {
					twin := w.Raw(t, "twin", peer, victim,
						packet.Packet{Dst: to.Addr(), Proto: packet.UDP, SrcPort: 10000 + i, DstPort: to.Port()})
					together(t, twin.Send)
					if n := 0; !stage.Becomes(func() bool { n = w.Taps[victim].Count(t, twin.Mark); return n == 2 }) {
						t.Fatalf("%d of 2 packets to %s arrived", n, to)
					}
				}
			}
			w.Moved(t, "twins", before, stage.Drops{})
		})
		t.Logf("%d pairs met while neither had an entry", w.tracking(t, node1, "clashres"))
	})
}

// together does something twice at the same moment.
func together(t *testing.T, do func() error) {
	t.Helper()
	var ready atomic.Int32
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			for ready.Add(1); ready.Load() < 2; {
			}
			if err := do(); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
}
