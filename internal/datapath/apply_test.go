// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

func TestFirstApplyWritesEverythingAndProvesIt(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		r := healthy(t, d, isolated("10.244.2.5"))
		if !r.Full || r.Changes == 0 || r.Drift != 0 || r.Filter {
			t.Errorf("report = %s, want a full read, changes, no drift, nat chains", brief(r))
		}
		if text := listing(t); !strings.Contains(text, "10.244.2.5") ||
			!strings.Contains(text, "hook postrouting priority -190") {
			t.Errorf("the table misses what was applied:\n%s", text)
		}
		counters, err := d.Counters()
		if err != nil {
			t.Fatal(err)
		}
		if counters[ruleset.CounterSelfTest] != 2 {
			t.Errorf("the self-test dropped %d packets, want one of each family", counters[ruleset.CounterSelfTest])
		}
		if links := run(t, "ip", "-o", "link"); strings.Contains(links, testLink) {
			t.Errorf("the self-test left its interface:\n%s", links)
		}
	})
}

// The base chains exist from the first sync on, also without pods.
func TestAnEmptyProgramHasItsBaseChains(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		healthy(t, open(t, Options{}), &program.Program{})
		if text := listing(t); !strings.Contains(text, "type nat hook postrouting priority -190") {
			t.Errorf("no base chain:\n%s", text)
		}
	})
}

func TestInvariant7TheSameProgramTwiceSendsNothing(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		before := generation(t, d)
		r := healthy(t, d, isolated("10.244.2.5"))
		if r.Changes != 0 || r.Full || generation(t, d) != before {
			t.Errorf("report = %s, generation %d after %d, want nothing sent", brief(r), generation(t, d), before)
		}
		if r = healthy(t, d, isolated("10.244.2.5", "10.244.2.6")); r.Changes != 1 || r.Elements != 1 {
			t.Errorf("a remote pod took %d operations with %d elements, want 1 and 1", r.Changes, r.Elements)
		}
	})
}

func generation(t *testing.T, d *Datapath) uint32 {
	t.Helper()
	g, err := d.conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Invariants 5 and 6: the kernel keeps enforcing while no agent runs, and a new process without memory
// recognises our objects.
func TestInvariant5And6TheTableOutlivesTheProcess(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		first := open(t, Options{})
		healthy(t, first, isolated("10.244.2.5"))
		before := listing(t)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, listing(t)); diff != "" {
			t.Errorf("closing changed the table:\n%s", diff)
		}
		second := open(t, Options{})
		if r := healthy(t, second, isolated("10.244.2.5")); r.Changes != 0 || !r.Full || r.Drift != 0 {
			t.Errorf("report of the second process = %s, want a full read and no change", brief(r))
		}
		third := open(t, Options{})
		if r := healthy(t, third, isolated("10.244.2.6")); r.Elements != 2 || r.Drift != 0 {
			t.Errorf("report = %s, want one element added and one deleted, and no drift: the difference is ours", brief(r))
		}
	})
}

func TestForeignChangesAreNoticedAndRepaired(t *testing.T) {
	tests := []struct{ name, change string }{
		{"ARuleOfOurs", "insert rule inet podwall postrouting accept"},
		{"AnElementOfOurs", "add element inet podwall pods4-peers { 203.0.113.1 }"},
		{"TheWholeRuleset", "flush ruleset"},
		{"TheTable", "delete table inet podwall"},
		{"Dormant", "add table inet podwall { flags dormant; }"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				d := open(t, Options{})
				ended := make(chan error, 1)
				go func() { ended <- d.Watch(ctx) }()
				healthy(t, d, isolated("10.244.2.5"))
				before := listing(t)
				awaitWatch(t, d)
				nftRun(t, tt.change)
				woken(t, d)
				settle(t, d)
				if diff := cmp.Diff(before, listing(t)); diff != "" {
					t.Errorf("the table after the repair (-before +after):\n%s", diff)
				}
				stop()
				if err := <-ended; err != nil {
					t.Errorf("Watch: %v", err)
				}
			})
		})
	}
}

// awaitWatch makes sure that the watch listens: it changes another program's objects until the datapath
// wakes up.
func awaitWatch(t *testing.T, d *Datapath) {
	t.Helper()
	for range 100 {
		nftRun(t, "add table inet other", "add chain inet other c { type filter hook output priority 0; }",
			"delete table inet other")
		select {
		case <-d.Changed():
			healthy(t, d, isolated("10.244.2.5"))
			return
		case <-time.After(50 * time.Millisecond): // it may not listen yet
		}
	}
	t.Fatal("the watch never woke us")
}

// settle applies until there was drift, as the agent's loop does on wake-ups.
func settle(t *testing.T, d *Datapath) {
	t.Helper()
	for range 20 {
		if r := healthy(t, d, isolated("10.244.2.5")); r.Drift > 0 {
			return
		}
		woken(t, d)
	}
	t.Fatal("the foreign change was never seen as drift")
}

// The periodic verification finds what a watch may have missed, also if an Apply in between had nothing to
// send.
func TestVerifyFindsWhatTheWatchMissed(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		verify(t, d)
		if r := healthy(t, d, isolated("10.244.2.5")); r.Full {
			t.Error("verified from the kernel though nothing changed")
		}
		nftRun(t, "insert rule inet podwall postrouting accept")
		healthy(t, d, isolated("10.244.2.5"))               // sends nothing
		healthy(t, d, isolated("10.244.2.5", "10.244.2.6")) // sends something
		verify(t, d)
		if r := healthy(t, d, isolated("10.244.2.5", "10.244.2.6")); r.Drift == 0 {
			t.Errorf("report = %s, want drift", brief(r))
		}
		verify(t, d)
		if r := healthy(t, d, isolated("10.244.2.5", "10.244.2.6")); r.Full {
			t.Error("our own commit is taken for another program's")
		}
	})
}

// Invariant 8: after a failed commit the cached state is dropped and the next pass reads back. Another
// program deletes an element, so our deletion of it fails, and with it the whole transaction.
func TestInvariant8AFailedCommitIsReadBack(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5", "10.244.2.6"))
		nftRun(t, "delete element inet podwall pods4-peers { 10.244.2.6 }")
		r, err := d.Apply(t.Context(), isolated("10.244.2.5", "10.244.2.7"))
		if err == nil {
			t.Fatalf("deleting a missing element succeeded: %s", brief(r))
		}
		if text := listing(t); strings.Contains(text, "10.244.2.7") || !strings.Contains(text, "10.244.2.5") {
			t.Errorf("a failed transaction changed something:\n%s", text)
		}
		r = healthy(t, d, isolated("10.244.2.5", "10.244.2.7"))
		if !r.Full || !strings.Contains(listing(t), "10.244.2.7") {
			t.Errorf("report = %s, want a full read and the change made", brief(r))
		}
	})
}

// A notice is not lost when the pass that took it fails before it reads.
func TestANoticeOutlivesAFailedPass(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		nftRun(t, "insert rule inet podwall postrouting accept",
			"add table inet theirs", "add chain inet theirs early { type nat hook postrouting priority -195; }")
		d.note(nft.Notice{Table: true, Hooks: true})
		working := d.conn
		d.conn = brokenConn(t)
		if r, err := d.Apply(t.Context(), isolated("10.244.2.5")); err == nil {
			t.Fatalf("applied over a broken connection: %s", brief(r))
		}
		d.conn = working
		if r := apply(t, d, isolated("10.244.2.5")); r.Drift == 0 || !r.Filter {
			t.Errorf("report = %s, want drift, and filter chains because of the chain before ours", brief(r))
		}
	})
}

// brokenConn returns a connection on which everything fails: it has to dial again, and its namespace is
// gone. No descriptor gets that number by chance.
func brokenConn(t *testing.T) *nft.Conn {
	t.Helper()
	const number = 900
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Dup3(int(ns.Fd()), number, unix.O_CLOEXEC), ns.Close()); err != nil {
		t.Fatal(err)
	}
	c, err := ruleset.Open(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), unix.Close(number)); err != nil {
		t.Fatal(err)
	}
	return c
}
