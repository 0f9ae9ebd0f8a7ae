// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Transactions that count together are not others'; all others are.
func TestOthersAreToldFromOurs(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	tally := new(Tally)
	var conns [3]*Conn // two that count together, and one of another program
	for i, name := range []string{"one", "two", "three"} {
		if conns[i], err = Open(ns.FD(), TableID{FamilyIP, name}); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		if i < 2 {
			conns[i].CountIn(tally)
		}
	}
	commit := func(who int) {
		t.Helper()
		if err := conns[who].Delete(); err != nil { // changes something each time: it adds the table first
			t.Fatal(err)
		}
	}
	mark, err := conns[0].Mark()
	if err != nil {
		t.Fatal(err)
	}
	since := func(want bool, when string) {
		t.Helper()
		others, now, err := conns[0].OthersSince(mark)
		if err != nil || others != want {
			t.Errorf("%s: others committed: %t, want %t (%v)", when, others, want, err)
		}
		mark = now
	}
	since(false, "without a transaction")
	commit(0)
	commit(1)
	since(false, "after one of each of ours")
	commit(2)
	commit(1)
	since(true, "after one of another program")
	commit(0)
	since(false, "after the next of ours")
}
