// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The search finds exactly the refused objects, unless it reaches the bound: then it leaves out some more.
func TestADivisionFindsWhatIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []object
		for i := range rapid.IntRange(1, 300).Draw(t, "objects") {
			all = append(all, object{chain: fmt.Sprint(i)})
		}
		bad := map[object]bool{}
		for range rapid.IntRange(0, 4).Draw(t, "bad") {
			bad[rapid.SampledFrom(all).Draw(t, "object")] = true
		}
		left := map[object]bool{}
		for _, o := range all {
			left[o] = true
		}
		search := division{groups: [][]object{all}}
		for group := search.next(); group != nil; group = search.next() {
			accepted := !slices.ContainsFunc(group, func(o object) bool { return bad[o] })
			for _, o := range group {
				if accepted {
					delete(left, o)
				}
			}
			search.result(accepted)
		}
		for o := range bad {
			if !left[o] {
				t.Fatalf("%s is refused and not left out", o)
			}
		}
		if search.tries > maxTries || search.tries < maxTries && len(left) != len(bad) {
			t.Fatalf("%d are left out of %d refused ones, in %d tries", len(left), len(bad), search.tries)
		}
	})
}

// withRefused adds pods that the kernel refuses: one whose chain uses a missing set, one whose chain is
// missing, and one behind a set with two elements of which one contains the other.
func withRefused(p *program.Program) *program.Program {
	nested := []inet.Range{inet.AddrRange(netip.MustParsePrefix("10.0.0.0/8")),
		inet.AddrRange(netip.MustParsePrefix("10.1.0.0/16"))}
	chain := func(name, set string) *program.Chain {
		return &program.Chain{Name: name, Direction: program.Ingress, Family: inet.IPv4,
			Rules: []program.Rule{{PeerSet: set}}}
	}
	return &program.Program{
		Pods: append(slices.Clone(p.Pods),
			program.Pod{Addr: netip.MustParseAddr("10.244.9.1"), Name: "x/no-set", Ingress: "ingress4-x1"},
			program.Pod{Addr: netip.MustParseAddr("10.244.9.2"), Name: "x/no-chain", Ingress: "ingress4-x2"},
			program.Pod{Addr: netip.MustParseAddr("10.244.9.3"), Name: "x/nested", Ingress: "ingress4-x3"}),
		Chains: append(slices.Clone(p.Chains), chain("ingress4-x1", "nowhere"), chain("ingress4-x3", "blocks4-x")),
		Sets: append([]*program.Set{{Name: "blocks4-x", Kind: inet.AddrRanges, Family: inet.IPv4, Ranges: nested}},
			p.Sets...),
	}
}

func TestWhatTheKernelRefusesIsLeftOutAndOthersGoOn(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		next := withRefused(isolated("10.244.2.5", "10.244.2.6")) // and a change of other objects
		if _, err := d.Apply(t.Context(), next); err == nil {
			t.Fatal("the kernel takes it: the test shows nothing")
		}
		r := apply(t, d, next)
		text := listing(t)
		there := map[string]bool{"10.244.2.6": true, "10.244.9.1 ": true, "10.244.9.2 ": true, "jump left-ingress4": true,
			"10.244.9.3 ": true, "blocks4-x": false}
		for what, want := range there {
			if strings.Contains(text, what) != want {
				t.Errorf("%s is there: %t, want %t\n%s", what, !want, want, text)
			}
		}
		said := leftOut(r)
		for _, want := range []string{"chain ingress4-x1 of x/no-set", "pod x/no-chain (10.244.9.2)",
			"chain ingress4-x3 of x/nested"} {
			if !strings.Contains(said.Text, want) || said.Blocking {
				t.Errorf("the problem is %+v, want it to name %q and not to block", said, want)
			}
		}
		if before := generation(t, d); apply(t, d, next).Changes != 0 || generation(t, d) != before {
			t.Error("the same program again sends something")
		}
		if r := apply(t, d, withRefused(isolated("10.244.2.7"))); !strings.Contains(listing(t), "10.244.2.7") ||
			leftOut(r).Text != said.Text {
			t.Errorf("the next change of others: %+v", leftOut(r))
		}
		if r := apply(t, d, isolated("10.244.2.7")); leftOut(r).Text != "" || strings.Contains(listing(t), "10.244.9") {
			t.Errorf("once they are gone: %+v", leftOut(r))
		}
	})
}

func leftOut(r Report) decide.Problem {
	for _, p := range r.Problems {
		if p.Subject == "left out" {
			return p
		}
	}
	return decide.Problem{}
}

// Without a table of an earlier process no other program can be the cause, and the error must not pass for
// a missing kernel feature.
func TestWhatTheKernelRefusesAtTheStartIsLeftOutAtOnce(t *testing.T) {
	for name, o := range map[string]Options{"closed": {}, "open": {Options: decide.Options{OpenUnknown: true}}} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				r := apply(t, open(t, o), withRefused(isolated("10.244.2.5")))
				text := listing(t)
				closed := strings.Contains(text, `"x/no-chain" : jump left-ingress4`)
				if leftOut(r).Text == "" || leftOut(r).Blocking || !strings.Contains(text, "10.244.2.5") || !closed {
					t.Errorf("%+v\n%s", leftOut(r), text)
				}
			})
		})
	}
}

// A verification tries again: another program may have caused the refusal.
func TestWhatWasLeftOutIsTriedAgain(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		p := isolated("10.244.2.5")
		d.left = omitted{objects: map[object]bool{{chain: p.Chains[0].Name}: true}}
		if r := apply(t, d, p); leftOut(r).Text == "" || strings.Contains(listing(t), "10.244.2.5") {
			t.Fatalf("it is not left out: %s", listing(t))
		}
		verify(t, d)
		if r := apply(t, d, p); leftOut(r).Text != "" || !strings.Contains(listing(t), "10.244.2.5") {
			t.Errorf("%+v\n%s", leftOut(r), listing(t))
		}
	})
}
