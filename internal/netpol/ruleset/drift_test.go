// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Whatever somebody else does to the table, reading it back and committing the
// difference makes it ours again, in one go.
func TestForeignChangesAreRepaired(t *testing.T) {
	tests := []struct{ name, change string }{
		{"an element is deleted", "delete element inet podwall pods4-web { 10.244.2.9 }"},
		{"an element is added", "add element inet podwall pods4-web { 203.0.113.1 }"},
		{"a pod is let through", "delete element inet podwall pod-ingress4 { 10.244.1.5 }; add element inet podwall pod-ingress4 { 10.244.1.5 : accept }"},
		{"a pod is forgotten", "delete element inet podwall pod-egress4 { 10.244.1.5 }"},
		{"a pod is let through to others", "add element inet podwall hairpin4 { 10.244.1.5 . 203.0.113.1 }"},
		{"every address is let through", "add element inet podwall pod-ingress4 { * : accept }"},
		{"every address is in a set", "add element inet podwall pods4-web { * }"},
		{"a gap is made in a prefix", "delete element inet podwall blocks4-a { 10.0.0.0/8 }; add element inet podwall blocks4-a { 10.0.0.0-10.0.0.4, 10.0.0.6/31 }"},
		{"a rule is added at the end", "add rule inet podwall to-pod accept"},
		{"a rule is added at the start", "insert rule inet podwall postrouting accept"},
		{"a rule with an anonymous set is added", "insert rule inet podwall postrouting ip saddr { 203.0.113.1, 203.0.113.2 } accept"},
		{"a rule with an anonymous map is added", "insert rule inet podwall postrouting ip saddr vmap { 203.0.113.1 : accept, 203.0.113.2 : drop }"},
		{"a chain is flushed", "flush chain inet podwall postrouting"},
		{"a chain is added", "add chain inet podwall theirs"},
		{"a base chain is added", "add chain inet podwall theirs { type filter hook forward priority 0; }"},
		{"a chain that calls ours is added", "add chain inet podwall theirs; add rule inet podwall theirs jump ingress4-web"},
		{"a chain that asks a set of theirs is added", "add set inet podwall mine { type ipv4_addr; }; add chain inet podwall theirs; add rule inet podwall theirs ip saddr @mine drop"},
		{"a set is added", "add set inet podwall mine { type ipv4_addr; elements = { 203.0.113.1 } }"},
		{"a set of another type is added", "add set inet podwall mine { type ether_addr; elements = { 02:00:00:00:00:01 } }"},
		{"a set of intervals is added", "add set inet podwall mine { type ipv4_addr; flags interval; elements = { 203.0.113.1-203.0.113.9 } }"},
		{"a set with timeouts is added", "add set inet podwall mine { type ipv4_addr; timeout 1h; elements = { 203.0.113.1 } }"},
		{"a counter is added", "add counter inet podwall mine"},
		{"a prefix is deleted", "delete element inet podwall blocks4-a { 10.0.0.0/8 }"},
		{"a prefix is added", "add element inet podwall blocks4-a { 203.0.113.0/24 }"},
		{"a prefix becomes narrower", "delete element inet podwall blocks4-a { 10.0.0.0/8 }; add element inet podwall blocks4-a { 10.0.0.0/16 }"},
		{"a prefix becomes wider", "delete element inet podwall blocks4-a { 1.2.3.4 }; add element inet podwall blocks4-a { 1.2.0.0/16 }"},
		{"an interval that is no prefix is added", "add element inet podwall blocks4-a { 203.0.113.1-203.0.113.9 }"},
		{"an interval that touches a prefix is added", "add element inet podwall blocks4-a { 203.0.113.0-203.0.113.255, 203.0.114.0-203.0.114.7 }"},
		{"the table is emptied", "flush table inet podwall"},
		{"the table is replaced", "delete table inet podwall; add table inet podwall; add chain inet podwall postrouting { type filter hook forward priority 0; }"},
		{"a set comes back as another", "delete table inet podwall; add table inet podwall; add set inet podwall pods4-web { type ipv6_addr; }"},
		{"the table is dormant", "add table inet podwall { flags dormant; }"},
		{"a base chain gets the policy drop", "add chain inet podwall postrouting { policy drop; }"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, ns := openIn(t)
			want := Render(sample(), nodes()["nat"])
			if err := c.Commit(nft.Diff(nil, want)); err != nil {
				t.Fatal(err)
			}
			before := nftrun.Lines(nftrun.Run(t, ns, "", "list", "ruleset"))
			nftrun.Run(t, ns, strings.ReplaceAll(tt.change, "; add ", "\nadd ")+"\n", "-f", "-")
			got, err := c.Read()
			if err != nil {
				t.Fatalf("reading back: %v", err)
			}
			if err := c.Commit(nft.Diff(got, want)); err != nil {
				t.Fatalf("repairing: %v\n%v", err, nft.Diff(got, want))
			}
			if got, err = c.Read(); err != nil {
				t.Fatal(err)
			}
			if ops := nft.Diff(got, want); len(ops) > 0 {
				t.Errorf("still different: %v", ops)
			}
			after := nftrun.Lines(nftrun.Run(t, ns, "", "list", "ruleset"))
			if tt.name != "a counter is added" && strings.Join(before, "\n") != strings.Join(after, "\n") {
				t.Errorf("listing before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		})
	}
}

// A change larger than one message or one transaction arrives whole.
func TestManyElementsArriveWhole(t *testing.T) {
	c, _ := openIn(t)
	p := sample()
	for i := range 60_000 {
		e := inet.Element{Addr: nthAddr(i)}
		p.Sets[1].Elements = p.Sets[1].Elements.With(e)
	}
	want := Render(p, program.Node{})
	if err := c.Commit(nft.Diff(nil, want)); err != nil {
		t.Fatal(err)
	}
	for try := 1; ; try++ {
		got, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		ops := nft.Diff(got, want)
		if len(ops) == 0 {
			break
		}
		// The kernel's hash may still be growing; a listing meanwhile misses some.
		if try == 20 {
			t.Fatalf("difference after reading back: %v", ops)
		}
	}
	if err := c.Commit(nft.Diff(want, Render(sample(), program.Node{}))); err != nil {
		t.Fatalf("deleting them again: %v", err)
	}
}

// The kernel counts every transaction, so that a look at the counter tells
// whether anything changed.
func TestGenerationChangesWithEveryTransaction(t *testing.T) {
	c, ns := openIn(t)
	seen := map[uint32]bool{}
	look := func(after string) {
		t.Helper()
		g, err := c.Generation()
		if err != nil {
			t.Fatal(err)
		}
		if seen[g] {
			t.Errorf("generation %d again after %s", g, after)
		}
		seen[g] = true
	}
	look("the start")
	if err := c.Commit(nft.Diff(nil, Render(sample(), program.Node{}))); err != nil {
		t.Fatal(err)
	}
	look("a commit")
	nftrun.Run(t, ns, "add table inet other\n", "-f", "-")
	look("another program's change")
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	look("deleting")
}

func nthAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)})
}
