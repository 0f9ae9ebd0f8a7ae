// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// hand is a change that another program makes to the kernel's rules, as nft commands.
type hand struct {
	name, commands string
	// harmless changes open no pod, so no packet may leak.
	harmless bool
	bridged  bool // makes sense on a bridge only
}

func hands() []hand {
	return []hand{
		{name: "flush ruleset", commands: "flush ruleset"},
		{name: "delete table", commands: "delete table inet podwall"},
		{name: "delete chain", commands: "flush chain inet podwall postrouting\ndelete chain inet podwall postrouting"},
		{name: "delete element of pod-ingress4 and pod-ingress6", commands: "delete element inet podwall pod-ingress4 { 10.244.1.10 }\ndelete element inet podwall pod-ingress6 { fd00:244:1::10 }", harmless: true},
		{name: "delete element of pod-egress4 and pod-egress6", commands: "delete element inet podwall pod-egress4 { 10.244.1.12 }\ndelete element inet podwall pod-egress6 { fd00:244:1::12 }"},
		{name: "insert rule accept", commands: "insert rule inet podwall postrouting accept"},
		{name: "table dormant", commands: "add table inet podwall { flags dormant; }"},
		{name: "flush table", commands: "flush table inet podwall"},
		{name: "delete table bridge podwall", commands: "delete table bridge podwall", harmless: true, bridged: true},
	}
}

// damage is the effect of one such change.
type damage struct {
	repaired time.Duration // from the start of the command, so with its own time
	packets  int           // that arrived though denied
	leak     time.Duration // from the first of them to the last
}

// Every change by another program is noticed by notification, long before the next verification, and
// repaired; packets that arrive in the meantime are counted.
func TestOtherHandsAreRepairedUnderFlood(t *testing.T) {
	needs(t, "nft")
	eachWiring(t, func(t *testing.T, w *world) {
		a := start(t, w.node(), agentProgram(), "--gate-socket=", "--manifests", w.dir, "--hostname-override=node1", "--iptables-sync-period=1h", "--on-policy-change=keep")
		w.enforced(a)
		want := w.tables()
		tr := w.traffic()
		for _, h := range hands() {
			if h.bridged && w.wiring != lab.Bridge {
				continue
			}
			var all []damage
			for range soak.Times(3, 50) {
				all = append(all, tr.suffer(h, want))
			}
			t.Logf("%-34s %s", h.name, summary(all))
		}
		tr.halt()
		check(t, tr.err)
		t.Logf("must never pass: %d sent, %d arrived; must always pass: %s", tr.sent.Load(), len(tr.arrived()), tr.steadyEnd())
		// A hand between a pass's reading and its writing makes that one fail. The next one repairs.
		for part := range strings.SplitSeq(a.Log(), "repaired") {
			if n := strings.Count(part, failedPass); n > 1 {
				t.Errorf("%d passes failed one after the other", n)
			}
		}
	})
}

// suffer makes one such change and returns when all is as before.
func (tr *traffic) suffer(h hand, want string) (d damage) {
	w := tr.w
	w.t.Helper()
	start := time.Now()
	w.nft(h.commands)
	w.becomes(h.name, want)
	end := time.Now()
	d.repaired = end.Sub(start)
	tr.pause(40) // packets that passed before the repair are seen by now, and later packets are judged below
	list := slices.DeleteFunc(tr.arrived(), func(a arrival) bool { return a.at.Before(start) })
	slices.SortFunc(list, func(a, b arrival) int { return a.at.Compare(b.at) })
	for _, l := range list {
		if l.at.After(end) || h.harmless {
			w.t.Errorf("%s: arrived %v after the start, repaired after %v: %s", h.name, l.at.Sub(start), d.repaired, l.what)
		}
	}
	if d.packets = len(list); d.packets > 0 {
		d.leak = list[len(list)-1].at.Sub(list[0].at)
	}
	return d
}

// summary gives the medians, 99th percentiles and maxima.
func summary(all []damage) string {
	var repaired, leak []time.Duration
	packets := 0
	for _, d := range all {
		repaired, leak = append(repaired, d.repaired), append(leak, d.leak)
		packets += d.packets
	}
	return fmt.Sprintf("%d rounds; repaired %s; leak %s, %d packets of 2 in a millisecond", len(all), spread(repaired), spread(leak), packets)
}

func spread(list []time.Duration) string {
	slices.Sort(list)
	at := func(part int) string { return list[(len(list)-1)*part/100].Round(100 * time.Microsecond).String() }
	return strings.Join([]string{"median", at(50), "p99", at(99), "worst", at(100)}, " ")
}
