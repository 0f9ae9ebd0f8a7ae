// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// prefixesOf reads two bytes for each prefix: an address of the small world,
// and how many host bits it leaves open.
func prefixesOf(v4 bool, data []byte) []netip.Prefix {
	var list []netip.Prefix
	for len(data) >= 2 && len(list) < 24 {
		a := nth(v4, int(data[0])%(1<<width))
		list = append(list, netip.PrefixFrom(a, a.BitLen()-int(data[1])%(width+2)))
		data = data[2:]
	}
	return list
}

func inRanges(list []inet.Range, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(r inet.Range) bool { return r.Contains(inet.Element{Addr: a}) })
}

// FuzzPrefixes holds the arithmetic of prefixes against a list of addresses:
// the first prefix is a block, the others are its holes.
func FuzzPrefixes(f *testing.F) {
	f.Add(true, []byte{0, 6, 3, 0, 4, 2})
	f.Add(false, []byte{63, 0, 62, 1, 0, 7})
	f.Fuzz(func(t *testing.T, v4 bool, data []byte) {
		list := prefixesOf(v4, data)
		if len(list) == 0 {
			return
		}
		whole, holes := list[0], list[1:]
		b := &cluster.IPBlock{CIDR: whole, Except: holes}
		compiled, some := block(b)
		rest, merged := blockRanges(b), mergePrefixes(list)
		for _, a := range space(v4) {
			want := covered(list[:1], a) && !covered(holes, a)
			if got := inRanges(rest, a); got != want {
				t.Errorf("%s without %v is %v; %s is in it: %t", whole, holes, rest, a, got)
			}
			if got := some && compiled.Contains(a); got != want {
				t.Errorf("%s without %v is compiled to %s; %s is in it: %t", whole, holes, compiled, a, got)
			}
			if got, want := covered(merged, a), covered(list, a); got != want {
				t.Errorf("%v merged is %v; %s is in it: %t", list, merged, a, got)
			}
		}
		for i := 1; i < len(merged); i++ {
			if merged[i-1].Overlaps(merged[i]) || merged[i-1].Addr().Compare(merged[i].Addr()) >= 0 {
				t.Errorf("%v is not sorted and disjoint", merged)
			}
		}
		for i := 1; i < len(rest); i++ {
			if rest[i-1].Last.Addr.Next().Compare(rest[i].First.Addr) >= 0 {
				t.Errorf("%v is not sorted, with a gap between each two", rest)
			}
		}
		if want := fewest(list, v4); len(merged) != want {
			t.Errorf("%v merged is %v, %d prefixes would do", list, merged, want)
		}
	})
}

// FuzzPortRanges holds the merging of port ranges against a list of ports:
// three bytes for each range, the first port and its width.
func FuzzPortRanges(f *testing.F) {
	f.Add([]byte{0, 80, 10, 0, 85, 0})
	f.Add([]byte{255, 255, 0, 255, 250, 5, 0, 1, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var ports []cluster.Port
		var want [1 << 16]bool
		for ; len(data) >= 3 && len(ports) < 64; data = data[3:] {
			first := max(1, int(data[0])<<8|int(data[1]))
			last := min(1<<16-1, first+int(data[2]))
			ports = append(ports, tcp(uint16(first), uint16(last)))
			for p := first; p <= last; p++ {
				want[p] = true
			}
		}
		ranges, all := rangesOf(ports, cluster.TCP)
		if all {
			t.Error("ranges became every port")
		}
		if other, all := rangesOf(ports, cluster.UDP); len(other) > 0 || all {
			t.Errorf("ranges of TCP became %v of UDP", other)
		}
		var got [1 << 16]bool
		for i, r := range ranges {
			for p := int(r.First); p <= int(r.Last); p++ {
				got[p] = true
			}
			if r.Any() || r.First > r.Last || i > 0 && ranges[i-1].Last >= r.First {
				t.Errorf("%v became %v: not sorted and disjoint", ports, ranges)
			}
		}
		if got != want {
			t.Errorf("%v became %v: not the same ports", ports, ranges)
		}
	})
}
