// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/netpol/cut"
)

var start = time.Unix(1_000_000, 0)

func TestWhoHasScansPaysForThem(t *testing.T) {
	a := newAccounts()
	flapping, quiet := cut.Payer{Tenant: "a"}, cut.Payer{Tenant: "b"}
	steps := []struct {
		name string
		at   time.Duration
		cost time.Duration // of flapping
		wait time.Duration // then
	}{
		{"the credit", 0, credit, 0},
		{"more than that", 0, time.Second, 5 * time.Second},
		{"a part is paid back", 2 * time.Second, 0, 3 * time.Second},
		{"everything", 5 * time.Second, 0, 0},
		{"no more than the credit is saved", time.Hour, credit + time.Second/5, time.Second},
	}
	for _, s := range steps {
		now := start.Add(s.at)
		if s.cost > 0 {
			a.charge([]cut.Payer{flapping}, s.cost, now)
		}
		if got := a.wait(flapping, now); got.Round(time.Millisecond) != s.wait {
			t.Errorf("%s: waits for %s, want %s", s.name, got, s.wait)
		}
		for _, p := range []cut.Payer{quiet, {}, {Tenant: "a", Members: true}} {
			if got := a.wait(p, now); got != 0 {
				t.Errorf("%s: %+v waits for %s", s.name, p, got)
			}
		}
	}
}

func TestThoseWhoShareAScanShareItsCost(t *testing.T) {
	a, now := newAccounts(), start
	both := []cut.Payer{{Tenant: "a"}, {Tenant: "b"}}
	a.charge(both, 2*credit+2*time.Second, now)
	for _, p := range both {
		if got := a.wait(p, now); got != 5*time.Second {
			t.Errorf("%s waits for %s", p.Tenant, got)
		}
	}
}

// A payer's wait depends only on its own scans.
func TestNobodyPaysForAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, alone := newAccounts(), map[cut.Payer]*accounts{}
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "pause")))
			p := cut.Payer{Tenant: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "tenant"),
				Members: rapid.Bool().Draw(t, "members")}
			cost := time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "cost"))
			if alone[p] == nil {
				one := newAccounts()
				alone[p] = &one
			}
			all.charge([]cut.Payer{p}, cost, now)
			alone[p].charge([]cut.Payer{p}, cost, now)
			if rapid.Bool().Draw(t, "forget") {
				all.forget(now)
			}
			for p, own := range alone {
				if got, want := all.wait(p, now), own.wait(p, now); got != want {
					t.Fatalf("%+v waits for %s, alone it would for %s", p, got, want)
				}
			}
		}
	})
}

func TestAccountsAreBounded(t *testing.T) {
	a, now := newAccounts(), start
	name := func(i int) cut.Payer { return cut.Payer{Tenant: fmt.Sprint(i)} }
	for i := range 10 * maxAccounts {
		a.charge([]cut.Payer{name(i)}, 2*credit, now)
	}
	if n := len(a.list); n > maxAccounts+1 {
		t.Errorf("%d accounts are kept", n)
	}
	if a.wait(name(0), now) == 0 || a.wait(name(20*maxAccounts), now) == 0 {
		t.Error("a debt was forgiven")
	}
	now = now.Add(20 * time.Duration(maxAccounts) * time.Hour)
	a.charge([]cut.Payer{name(0)}, time.Second, now)
	if n := len(a.list); n != 1 {
		t.Errorf("%d accounts are kept although all are full", n)
	}
	if a.wait(name(20*maxAccounts), now) != 0 {
		t.Error("who is new waits")
	}
}
