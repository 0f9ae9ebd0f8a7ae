// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/nft"
	"github.com/podwall/podwall/internal/testkit/interpose"
)

// inForce says what a table lacks of isolated(first) with the peer.
func inForce(table *nft.Table) string {
	if why := closedWeb(table); why != "" {
		return why
	}
	for _, c := range table.Chains {
		if c.Name == "ingress4-web" && len(c.Rules) < 2 {
			return "the pod's chain allows nobody"
		}
	}
	if table.Set("pods4-peers") == nil {
		return "the set of the pod's peers is gone"
	}
	return ""
}

// eachState runs f and looks at each state of the kernel's table meanwhile: before
// each message that f sends, as a transaction is one message, and at the end. at is
// called with the number of the state.
func eachState(t *testing.T, at func(int), f func()) (states int) {
	t.Helper()
	witness, err := nft.Open(0)
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

// What is in force and still wanted stays so while it is looked for what the kernel
// refuses, and also when it is tried again.
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
				if err != nil || !strings.Contains(leftOut(r).Text, "chain ingress4-x1 of x/no-set, chain ingress4-x3 of x/nested, pod x/no-chain") {
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

// It stays so also when the search is stopped, wherever that is.
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

// What is refused although nothing is new, nobody looks for: the kernel keeps what
// it has, as it does where an earlier agent's rules are in force.
func TestWhereNothingIsKnownToBeAcceptedNothingIsTaken(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		refused := func(d *Datapath, p *filter.Program) {
			t.Helper()
			before := listing(t)
			for range 3 {
				if _, err := d.Apply(t.Context(), p); err == nil {
					t.Fatal("the kernel takes it: the test shows nothing")
				}
			}
			if after := listing(t); after != before {
				t.Errorf("the table changed from\n%s\nto\n%s", before, after)
			}
		}
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		same := isolated(first)
		same.Sets = []*filter.Set{{Name: "pods4-peers", Kind: filter.AddrRanges, Family: filter.IPv4, Ranges: withRefused(same).Sets[0].Ranges}}
		refused(d, same)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		later := open(t, Options{})
		refused(later, withRefused(isolated(first)))
		healthy(t, later, isolated(first))
		_, _ = later.Apply(t.Context(), withRefused(isolated(first)))
		if r := apply(t, later, withRefused(isolated(first))); leftOut(r).Text == "" {
			t.Errorf("%+v", r.Problems)
		}
	})
}
