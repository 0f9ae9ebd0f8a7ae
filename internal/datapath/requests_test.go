// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/netpol/cut"
)

func scopeOf(addrs ...string) *cut.Scope {
	s := cut.NewScope()
	for _, a := range addrs {
		s.Touched[netip.MustParseAddr(a)] = true
	}
	return s
}

func tenantsOf(t turn) string {
	var list []string
	for p := range t.scopes {
		list = append(list, p.Tenant)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

const few, many = 100, 200_000 // entries: all are handed over, or those of an address

func TestWhoIsInDebtWaitsAndGoesAlong(t *testing.T) {
	a, b := cut.Payer{Tenant: "a"}, cut.Payer{Tenant: "b"}
	tests := []struct {
		name    string
		entries uint32
		asks    []cut.Payer
		want    string
		until   time.Duration // 0 for none
	}{
		{"no request", few, nil, "", 0},
		{"in debt", few, []cut.Payer{a}, "", 5 * time.Second},
		{"not in debt", few, []cut.Payer{b}, "b", 0},
		{"both, all are handed over", few, []cut.Payer{a, b}, "a b", 5 * time.Second},
		{"both, an address is asked for", many, []cut.Payer{a, b}, "b", 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			accounts, r := newAccounts(), requests{}
			accounts.charge([]cut.Payer{a}, credit+time.Second, start)
			for _, p := range tt.asks {
				r.add(p, scopeOf(first))
			}
			turn, until := r.pick(&accounts, tt.entries, start)
			if got := tenantsOf(turn); got != tt.want || slices.Contains(turn.paying, a) {
				t.Errorf("served are %q, want %q; paying are %v", got, tt.want, turn.paying)
			}
			if wait := until.Sub(start); tt.until > 0 && wait != tt.until || tt.until == 0 && !until.IsZero() {
				t.Errorf("the next is due at %s, want in %s", until, tt.until)
			}
		})
	}
}

func TestASecondLookComesAtItsTime(t *testing.T) {
	accounts, r, b := newAccounts(), requests{}, cut.Payer{Tenant: "b"}
	r.again(b, scopeOf(first), start)
	r.again(b, scopeOf(second), start.Add(secondLook/2)) // goes with it
	if turn, until := r.pick(&accounts, few, start); len(turn.scopes) > 0 || until != start.Add(secondLook) {
		t.Errorf("served are %q, the next is due at %s", tenantsOf(turn), until)
	}
	turn, _ := r.pick(&accounts, few, start.Add(secondLook))
	if s := turn.scopes[b]; s == nil || len(s.Touched) != 2 || len(r) != 0 {
		t.Errorf("looked at is %+v, %v is left", s, r)
	}
}

// A second look needs no scan of its own if another one dumps everything.
func TestASecondLookGoesAlong(t *testing.T) {
	b, c := cut.Payer{Tenant: "b"}, cut.Payer{Tenant: "c"}
	tests := []struct {
		name    string
		entries uint32
		after   time.Duration
		by      cut.Payer
		along   int
	}{
		{"with another's scan", few, inFlight, c, 1},
		{"with its own next scan", few, inFlight, b, 1},
		{"not while packets may be in flight", few, inFlight - 1, c, 0},
		{"not if single addresses are asked for", many, inFlight, c, 0},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			accounts, r := newAccounts(), requests{}
			r.again(b, scopeOf(first), start)
			r.add(tt.by, scopeOf(second))
			turn, _ := r.pick(&accounts, tt.entries, start.Add(tt.after))
			if len(turn.along) != tt.along || len(turn.paying) != 1 || turn.paying[0] != tt.by {
				t.Errorf("along go %v, paying are %v; want %d along", turn.along, turn.paying, tt.along)
			}
			if all := len(turn.all().Touched); all != 1+tt.along {
				t.Errorf("%d addresses are scanned for, want %d", all, 1+tt.along)
			}
			if turn, _ := r.pick(&accounts, few, start.Add(secondLook)); len(turn.scopes) != 1-tt.along || len(r) > 0 {
				t.Errorf("later %v are scanned, %v wait", turn.scopes, r)
			}
		})
	}
}

// Who waits for a change goes on before the scan takes a processor.
func TestAScanLetsOthersGoFirst(t *testing.T) {
	a := audit{}
	a.init(slog.New(slog.DiscardHandler), func() {}, func() {})
	begin := time.Now()
	a.look(cut.Scopes{{Tenant: "a"}: scopeOf(first)}, nil)
	if a.idle(t.Context(), time.Time{}); time.Since(begin) < lull {
		t.Errorf("the scan begins after %s, want %s at least", time.Since(begin), lull)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	a.idle(ended, time.Time{}) // returns
}

// Payers without debt are served at once, payers in debt do not pay, and no request is lost.
func TestRequestsAreServedInTurn(t *testing.T) {
	payers := []cut.Payer{{}, {Tenant: "a"}, {Tenant: "a", Members: true}, {Tenant: "b"}, {Tenant: "c"}}
	rapid.Check(t, func(t *rapid.T) {
		accounts, r, now, asked := newAccounts(), requests{}, start, map[cut.Payer]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "pause")))
			for range rapid.IntRange(0, 3).Draw(t, "asking") {
				p := rapid.SampledFrom(payers).Draw(t, "payer")
				r.add(p, scopeOf(first))
				asked[p] = true
			}
			solvent := func(p cut.Payer) bool { return accounts.wait(p, now) == 0 }
			owing := slices.DeleteFunc(slices.Collect(maps.Keys(asked)), solvent)
			turn, until := r.pick(&accounts, rapid.SampledFrom([]uint32{few, many}).Draw(t, "entries"), now)
			for p := range asked {
				if solvent(p) && !slices.Contains(turn.paying, p) {
					t.Fatalf("%+v has no debt and waits", p)
				}
			}
			if len(turn.scopes) == 0 && len(owing) > 0 && !until.After(now) {
				t.Fatalf("%v wait without an end", owing)
			}
			for p := range turn.scopes {
				if !asked[p] || slices.Contains(turn.paying, p) != solvent(p) {
					t.Fatalf("%+v: asked %t, solvent %t, paying %v", p, asked[p], solvent(p), turn.paying)
				}
				delete(asked, p)
			}
			if len(asked) != len(r) {
				t.Fatalf("%v wait, kept are %v", asked, r)
			}
			accounts.charge(turn.paying, time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "cost")), now)
		}
	})
}
