// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

func scopeOf(addrs ...string) *scope {
	s := newScope()
	for _, a := range addrs {
		s.touched[netip.MustParseAddr(a)] = true
	}
	return s
}

func tenantsOf(t turn) string {
	var list []string
	for p := range t.scopes {
		list = append(list, p.tenant)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

const few, many = 100, 200_000 // entries: all are handed over, or those of an address

func TestWhoIsInDebtWaitsAndGoesAlong(t *testing.T) {
	a, b := payer{tenant: "a"}, payer{tenant: "b"}
	tests := []struct {
		name    string
		entries uint32
		asks    []payer
		want    string
		until   time.Duration // 0 for none
	}{
		{"nobody asks", few, nil, "", 0},
		{"in debt", few, []payer{a}, "", 5 * time.Second},
		{"not in debt", few, []payer{b}, "b", 0},
		{"both, all are handed over", few, []payer{a, b}, "a b", 5 * time.Second},
		{"both, an address is asked for", many, []payer{a, b}, "b", 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			accounts, r := newAccounts(), requests{}
			accounts.charge([]payer{a}, credit+time.Second, start)
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
	accounts, r, b := newAccounts(), requests{}, payer{tenant: "b"}
	r.again(b, scopeOf(first), start.Add(secondLook))
	r.again(b, scopeOf(second), start.Add(time.Hour)) // goes with it
	if turn, until := r.pick(&accounts, few, start); len(turn.scopes) > 0 || until != start.Add(secondLook) {
		t.Errorf("served are %q, the next is due at %s", tenantsOf(turn), until)
	}
	turn, _ := r.pick(&accounts, few, start.Add(secondLook))
	if s := turn.scopes[b]; s == nil || len(s.touched) != 2 || len(r) != 0 {
		t.Errorf("looked at is %+v, %v is left", s, r)
	}
}

// Who is not in debt is served at once, who pays is not in debt, and nothing that
// somebody asked for is lost.
func TestRequestsAreServedInTurn(t *testing.T) {
	payers := []payer{{}, {tenant: "a"}, {tenant: "a", members: true}, {tenant: "b"}, {tenant: "c"}}
	rapid.Check(t, func(t *rapid.T) {
		accounts, r, now, asked := newAccounts(), requests{}, start, map[payer]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "pause")))
			for range rapid.IntRange(0, 3).Draw(t, "asking") {
				p := rapid.SampledFrom(payers).Draw(t, "payer")
				r.add(p, scopeOf(first))
				asked[p] = true
			}
			solvent := func(p payer) bool { return accounts.wait(p, now) == 0 }
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

// Own changes are paid by the pod's namespace; what others' pods did is paid from
// an account of its own; nobody is the node.
func TestWhoseChangeNeedsAScanPays(t *testing.T) {
	at := netip.MustParseAddr
	before := &program.Program{Pods: []program.Pod{{Addr: at(first), Tenant: "gone"}}}
	now := &program.Program{Pods: []program.Pod{{Addr: at(webPod), Tenant: "a", Ingress: "x"}, {Addr: at(second), Tenant: "b"}}}
	todo := &plan{scopes: scopes{}}
	todo.look(before, now, cut.Change{Denied: []netip.Addr{at(webPod)}, Shrunk: []netip.Addr{at(second)}, Left: []netip.Addr{at(first)}})
	a, b, gone := todo.scopes[payer{tenant: "a"}], todo.scopes[payer{tenant: "b", members: true}], todo.scopes[payer{tenant: "gone"}]
	if len(todo.scopes) != 3 || a == nil || !a.touched[at(webPod)] || b == nil || !b.touched[at(second)] || gone == nil || gone.left[at(first)] != "gone" {
		t.Errorf("payers are %v", slices.Collect(maps.Keys(todo.scopes)))
	}
	if p := payerOf(now, []netip.Addr{at(second), at(webPod)}); p != (payer{tenant: "a"}) {
		t.Errorf("who isolated a pod on a bridge does not pay, but %+v", p)
	}
	if p := payerOf(now, []netip.Addr{at(second)}); p != (payer{}) {
		t.Errorf("where nobody isolated a pod the node does not pay, but %+v", p)
	}
}
