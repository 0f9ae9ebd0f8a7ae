// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/interpose"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// inForce returns what a table lacks of isolated(first) with the peer.
func inForce(table *nft.Table) string {
	if why := closedWeb(table); why != "" {
		return why
	}
	for _, c := range table.Chains {
		if c.Name == "ingress4-web" && len(c.Rules) < 2 {
			return "the pod's chain allows no peer"
		}
	}
	if table.Set("pods4-peers") == nil {
		return "the set of the pod's peers is gone"
	}
	return ""
}

// eachState runs f and checks each state of the kernel's table in the meantime: before each message that f
// sends, as a transaction is one message, and at the end. at is called with the number of the state.
func eachState(t *testing.T, at func(int), f func()) (states int) {
	t.Helper()
	witness, err := ruleset.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer witness.Close()
	last := uint32(0)
	var mu sync.Mutex // guards last and states: each call is answered by a goroutine
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		g, err := witness.Generation()
		if err != nil {
			t.Error(err)
		}
		if g == last {
			return
		}
		last = g
		table, err := witness.Read()
		if err != nil {
			t.Error(err)
		} else if why := inForce(table); why != "" {
			t.Errorf("state %d: %s", states, why)
		}
		at(states)
		states++
	}
	answer := func(*interpose.Call) interpose.Answer {
		look()
		return interpose.Pass()
	}
	interposed(t, answer, []int{unix.SYS_SENDMSG, unix.SYS_SENDTO}, f)
	look()
	return states
}

// Objects in force that are still wanted stay during a search for refused objects, and also when these are
// tried again.
func TestASearchTakesNothingAwayThatIsInForce(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		next := withRefused(withPod(isolated(first, second), "10.244.1.6", "shop/next"))
		states := eachState(t, func(int) {}, func() {
			if _, err := d.Apply(t.Context(), next); err == nil {
				t.Error("the kernel takes it: the test shows nothing")
			}
			for range 2 {
				r, err := d.Apply(t.Context(), next)
				if err != nil || !strings.Contains(leftOut(r).Text,
					"chain ingress4-x1 of x/no-set, chain ingress4-x3 of x/nested, pod x/no-chain") {
					t.Errorf("%+v %v", leftOut(r), err)
				}
				d.retryLeft() // as Verify does
			}
		})
		if text := listing(t); states < 5 || !strings.Contains(text, "10.244.1.6") || !strings.Contains(text, second) {
			t.Errorf("there were %d states:\n%s", states, text)
		}
	})
}

// They also stay if the search is stopped at any point.
func TestASearchThatIsStoppedLeavesWhatIsInForce(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		next, stopped := withRefused(isolated(first)), 0
		for end := 0; ; end++ {
			healthy(t, d, isolated(first))
			if _, err := d.Apply(t.Context(), next); err == nil {
				t.Fatal("the kernel takes it: the test shows nothing")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancelAt := func(n int) {
				if n == end {
					cancel()
				}
			}
			var err error
			states := eachState(t, cancelAt, func() { _, err = d.Apply(ctx, next) })
			cancel()
			if states <= end {
				break
			}
			if err != nil {
				stopped++
			}
			if r := apply(t, d, next); leftOut(r).Text == "" {
				t.Errorf("after it was stopped at state %d: %+v", end, r.Problems)
			}
		}
		if stopped < 3 {
			t.Errorf("the search was stopped %d times: the test shows nothing", stopped)
		}
	})
}

// If something is refused although no object is new, there is no search: the kernel keeps its state.
func TestWhereNothingIsNewNothingIsTaken(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		before, same := listing(t), isolated(first)
		same.Sets = []*program.Set{{Name: "pods4-peers", Kind: inet.AddrRanges, Family: inet.IPv4,
			Ranges: withRefused(same).Sets[0].Ranges}}
		for range 3 {
			if _, err := d.Apply(t.Context(), same); err == nil {
				t.Fatal("the kernel takes it: the test shows nothing")
			}
		}
		if after := listing(t); after != before {
			t.Errorf("the table changed from\n%s\nto\n%s", before, after)
		}
	})
}

// refusedOnce applies a refused program, then again, which bisects it.
func refusedOnce(t *testing.T, d *Datapath, p *program.Program) Report {
	t.Helper()
	if _, err := d.Apply(t.Context(), p); err == nil {
		t.Error("the kernel takes it: the test shows nothing")
	}
	r, err := d.Apply(t.Context(), p)
	if err != nil {
		t.Error(err)
	}
	return r
}

// Objects of an earlier agent are in force like those of this one, except for objects that it had left out:
// these are tried again.
func TestASearchAfterARestartTakesNothingAway(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		earlier := open(t, Options{})
		healthy(t, earlier, isolated(first))
		refusedOnce(t, earlier, withRefused(isolated(first)))
		if err := earlier.Close(); err != nil {
			t.Fatal(err)
		}
		d := open(t, Options{})
		next := withRefused(withPod(isolated(first, second), "10.244.1.6", "shop/next"))
		states := eachState(t, func(int) {}, func() {
			const named = "chain ingress4-x1 of x/no-set, chain ingress4-x3 of x/nested, pod x/no-chain"
			if r := refusedOnce(t, d, next); !strings.Contains(leftOut(r).Text, named) {
				t.Errorf("%+v", r.Problems)
			}
		})
		if text := listing(t); states < 3 || !strings.Contains(text, "10.244.1.6") || !strings.Contains(text, second) {
			t.Errorf("there were %d states:\n%s", states, text)
		}
		healthy(t, d, isolated(first))
	})
}

// A refused member blocks neither the other members of its set nor other objects, and is tried again when
// the set loses it.
func TestAMemberThatIsRefusedIsLeftOut(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		eachState(t, func(int) {}, func() {
			r := refusedOnce(t, d, withPod(isolated(first, second, "fd00::1"), "10.244.1.6", "shop/next"))
			if !strings.HasSuffix(leftOut(r).Text, ": member fd00::1 of set pods4-peers") {
				t.Errorf("%+v", r.Problems)
			}
			if text := listing(t); !strings.Contains(text, second) || !strings.Contains(text, "10.244.1.6") {
				t.Errorf("others did not go on:\n%s", text)
			}
			apply(t, d, isolated(first, "10.244.2.7", "fd00::1"))
		})
		if text := listing(t); !strings.Contains(text, "10.244.2.7") || strings.Contains(text, second) {
			t.Errorf("the set does not follow:\n%s", text)
		}
		healthy(t, d, isolated(first))
	})
}

// If the kernel refuses a pod's address even when closed, the pod is removed, and the node is not ready.
func TestAPodThatCannotBeClosedIsTakenOut(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		next := withPod(isolated(first, second), "10.244.1.6", "shop/next")
		next.Pods = append([]program.Pod{{Name: "x/nowhere"}}, next.Pods...)
		said := leftOut(refusedOnce(t, d, next))
		if !strings.Contains(said.Text, "pod x/nowhere") || !said.Blocking || !strings.Contains(listing(t), "10.244.1.6") {
			t.Errorf("%+v\n%s", said, listing(t))
		}
	})
}

// A refused pod is found also if new pods are held before they are programmed.
func TestARefusedPodThatIsHeldIsFound(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		watched(t, d)
		next := withPod(isolated(first), stranger, "x/no-chain")
		next.Pods[1].Ingress = "ingress4-nowhere"
		refusals := 0
		for passes := 0; ; passes++ {
			r, err := d.Apply(t.Context(), next)
			if err == nil && leftOut(r).Text != "" {
				break
			}
			if err != nil {
				refusals++
			} else if len(r.Held) > 0 {
				woken(t, d)
			}
			if passes == 100 || refusals == 5 {
				t.Fatalf("it is not left out after %d passes and %d refusals: %+v %v", passes, refusals, r.Problems, err)
			}
		}
	})
}

// A pass ends soon after its context, also while it reads the table.
func TestAReadingOfTheTableEndsWithTheContext(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		for end := range 12 {
			d.note(nft.Notice{Table: true, Hooks: true}) // so that everything is read
			ctx, cancel := context.WithCancel(t.Context())
			var sent, after atomic.Int32
			answer := func(*interpose.Call) interpose.Answer {
				switch n := int(sent.Add(1)); {
				case n == 8*end+1:
					cancel()
				case n > 8*end+1:
					after.Add(1)
				}
				return interpose.Pass()
			}
			interposed(t, answer, []int{unix.SYS_SENDMSG, unix.SYS_SENDTO}, func() { _, _ = d.Apply(ctx, isolated(second)) })
			cancel()
			if after.Load() > 12 {
				t.Errorf("stopped at message %d, it sends %d more", 8*end+1, after.Load())
			}
		}
	})
}
