// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// width is the number of host bits that prefixes of these tests may leave
// open: few enough to ask every address.
const width = 6

// base returns the first address of the small world of a family.
func base(v4 bool) netip.Addr {
	if v4 {
		return netip.AddrFrom4([4]byte{10})
	}
	return netip.AddrFrom16([16]byte{0xfd})
}

// space returns every address of the small world of a family.
func space(v4 bool) []netip.Addr {
	a := base(v4)
	var list []netip.Addr
	for range 1 << width {
		list = append(list, a)
		a = a.Next()
	}
	return list
}

// small draws a prefix of the small world; sometimes of another one.
func small(t *rapid.T, v4 bool) netip.Prefix {
	a := rapid.SampledFrom(space(v4)).Draw(t, "address")
	bits := a.BitLen() - rapid.IntRange(0, width+1).Draw(t, "host bits")
	return netip.PrefixFrom(a, bits).Masked()
}

func covered(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

func TestTheRangesOfABlockAreExactlyTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v4 := rapid.Bool().Draw(t, "v4")
		b := &cluster.IPBlock{CIDR: small(t, v4)}
		for range rapid.IntRange(0, 5).Draw(t, "holes") {
			b.Except = append(b.Except, small(t, v4))
		}
		rest := blockRanges(b)
		for _, a := range space(v4) {
			if got := inRanges(rest, a); got != b.Contains(a) {
				t.Fatalf("%s without %v = %v; %s is in it: %t", b.CIDR, b.Except, rest, a, got)
			}
		}
		if len(rest) > len(b.Except)+1 {
			t.Fatalf("%s without %v = %v: more ranges than holes", b.CIDR, b.Except, rest)
		}
	})
}

func TestMergeCoversTheSameWithTheFewestPrefixes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v4 := rapid.Bool().Draw(t, "v4")
		var list []netip.Prefix
		for range rapid.IntRange(0, 12).Draw(t, "prefixes") {
			list = append(list, small(t, v4))
		}
		merged := mergePrefixes(list)
		for _, a := range space(v4) {
			if got, want := covered(merged, a), covered(list, a); got != want {
				t.Fatalf("merge %v = %v; %s is in it: %t", list, merged, a, got)
			}
		}
		disjointAndSorted(t, merged)
		if want := fewest(list, v4); len(merged) != want {
			t.Fatalf("merge %v = %v, want %d prefixes", list, merged, want)
		}
		if diff := cmp.Diff(merged, mergePrefixes(rapid.Permutation(list).Draw(t, "order")),
			cmp.Comparer(samePrefix)); diff != "" {
			t.Fatalf("the order of the list matters:\n%s", diff)
		}
	})
}

func samePrefix(a, b netip.Prefix) bool { return a == b }

func disjointAndSorted(t *rapid.T, list []netip.Prefix) {
	t.Helper()
	for i := 1; i < len(list); i++ {
		if list[i-1].Overlaps(list[i]) || list[i-1].Addr().Compare(list[i].Addr()) >= 0 {
			t.Fatalf("%v is not sorted and disjoint", list)
		}
	}
}

// fewest counts prefixes in the dullest way: from the widest down, every
// prefix whose addresses are all meant, and none inside one that was taken.
// The world above the small one is covered if one of the list holds all of it.
func fewest(list []netip.Prefix, v4 bool) int {
	bits := base(v4).BitLen()
	var taken []netip.Prefix
	for open := width + 1; open >= 0; open-- {
		for i := 0; i < 1<<(width+1); i += 1 << open {
			p := netip.PrefixFrom(nth(v4, i), bits-open)
			if !covered(taken, p.Addr()) && all(list, v4, i, 1<<open) {
				taken = append(taken, p)
			}
		}
	}
	return len(taken)
}

func all(list []netip.Prefix, v4 bool, from, n int) bool {
	for i := range n {
		if !covered(list, nth(v4, from+i)) {
			return false
		}
	}
	return true
}

func nth(v4 bool, i int) netip.Addr {
	b := base(v4).AsSlice()
	b[len(b)-1] = byte(i)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestMergeJoinsUpToTheWholeFamily(t *testing.T) {
	for in, want := range map[string]string{
		"0.0.0.0/1 128.0.0.0/1":                 "[0.0.0.0/0]",
		"::/1 8000::/1":                         "[::/0]",
		"10.0.0.0/25 10.0.0.128/25 10.0.1.0/24": "[10.0.0.0/23]",
		"10.0.1.0/24 10.0.2.0/24":               "[10.0.1.0/24 10.0.2.0/24]",
		"10.0.0.7/24":                           "[10.0.0.0/24]",
		"0.0.0.0/1 8000::/1":                    "[0.0.0.0/1 8000::/1]",
		"10.0.0.0/24 10.0.0.0/24 10.0.0.0/16":   "[10.0.0.0/16]",
		"255.255.255.255/32 255.255.255.254/32": "[255.255.255.254/31]",
	} {
		if got := fmt.Sprint(mergePrefixes(prefixes(in))); got != want {
			t.Errorf("merge %s = %s, want %s", in, got, want)
		}
	}
}

func TestBlockKeepsTheHolesThatMatter(t *testing.T) {
	tests := []struct{ name, cidr, except, want string }{
		{"no hole", "10.0.0.0/8", "", "10.0.0.0/8"},
		{"host bits are masked", "10.1.2.3/8", "10.9.9.9/16", "10.0.0.0/8 except 10.9.0.0/16"},
		{"a hole outside", "10.0.0.0/8", "11.0.0.0/8", "10.0.0.0/8"},
		{"a hole that covers the block", "10.0.0.0/8", "0.0.0.0/0", "nothing"},
		{"a hole equal to the block", "10.0.0.0/8", "10.0.0.0/8", "nothing"},
		{"holes that cover the block together", "10.0.0.0/8", "10.0.0.0/9 10.128.0.0/10 10.192.0.0/10", "nothing"},
		{"holes are joined and sorted", "10.0.0.0/8", "10.3.0.0/16 10.1.0.0/16 10.2.0.0/16",
			"10.0.0.0/8 except 10.1.0.0/16 except 10.2.0.0/15"},
		{"a hole in a hole", "10.0.0.0/8", "10.1.2.0/24 10.1.0.0/16", "10.0.0.0/8 except 10.1.0.0/16"},
		{"IPv6", "fd00::/8", "fd01::/16", "fd00::/8 except fd01::/16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, ok := block(&cluster.IPBlock{CIDR: netip.MustParsePrefix(tt.cidr), Except: prefixes(tt.except)})
			got := "nothing"
			if ok {
				got = b.String()
			}
			if got != tt.want {
				t.Errorf("block = %q, want %q", got, tt.want)
			}
		})
	}
}

// Whatever the holes, the block that is compiled has the addresses of the block
// that was written.
func TestBlockHasTheSameAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v4 := rapid.Bool().Draw(t, "v4")
		from := &cluster.IPBlock{CIDR: small(t, v4)}
		for range rapid.IntRange(0, 4).Draw(t, "holes") {
			from.Except = append(from.Except, small(t, v4))
		}
		b, ok := block(from)
		for _, a := range space(v4) {
			if got := ok && b.Contains(a); got != from.Contains(a) {
				t.Fatalf("%s except %v became %s; %s is in it: %t", from.CIDR, from.Except, b, a, got)
			}
		}
	})
}

func prefixes(text string) []netip.Prefix {
	var list []netip.Prefix
	for _, f := range strings.Fields(text) {
		list = append(list, netip.MustParsePrefix(f))
	}
	return list
}

// Up to eight blocks and holes of a rule are spelled out; more become a set.
func TestManyBlocksBecomeASet(t *testing.T) {
	tests := []struct {
		name         string
		blocks       int
		holesOfFirst int
		set          bool
	}{
		{"eight blocks", 8, 0, false},
		{"nine blocks", 9, 0, true},
		{"a block with seven holes", 1, 7, false},
		{"a block with eight holes", 1, 8, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var blocks []*cluster.IPBlock
			for i := range tt.blocks {
				b := &cluster.IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + 2*i)}), 8)}
				if i == 0 {
					for h := range tt.holesOfFirst {
						b.Except = append(b.Except, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(2 * h)}), 16))
					}
				}
				blocks = append(blocks, b)
			}
			c := &compiled{sets: map[string]*setRef{}}
			if c.blockPeers(inet.IPv4, program.Ingress, blocks); (len(c.sets) > 0) != tt.set {
				t.Errorf("%d sets, want one: %t", len(c.sets), tt.set)
			}
			if list := c.blockPeers(inet.IPv6, program.Ingress, blocks); len(list) > 0 {
				t.Errorf("blocks of IPv4 are %v in IPv6", list)
			}
		})
	}
}

// A rule whose blocks are all taken away by their holes allows nobody, also when
// they are many.
func TestManyBlocksOfNothingAllowNobody(t *testing.T) {
	whole := netip.MustParsePrefix("20.0.0.0/8")
	var blocks []*cluster.IPBlock
	for range maxLiterals + 1 {
		blocks = append(blocks, &cluster.IPBlock{CIDR: whole, Except: []netip.Prefix{whole}})
	}
	c := &compiled{sets: map[string]*setRef{}}
	if list := c.blockPeers(inet.IPv4, program.Ingress, blocks); len(list) > 0 {
		t.Errorf("nothing is compiled to %v", list)
	}
}
