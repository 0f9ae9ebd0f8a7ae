// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

// many is a set with n addresses, as written to the kernel.
func many(n int) *Set {
	list := make([]inet.Element, n)
	for i := range list {
		list[i].Addr = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x14000000+2*uint32(i))))
	}
	return &Set{Name: "many", Key: Addr4, Elements: immutable.Of(list...)}
}

// More than one message of the kernel can hold, read by us and by the library.
func TestAListingOfAnySizeIsComplete(t *testing.T) {
	for _, n := range []int{0, 1, 3_000, 10_000} {
		c, _ := openIn(t)
		want := many(n)
		if err := c.Commit(Diff(nil, &Table{Sets: []*Set{want}})); err != nil {
			t.Fatal(err)
		}
		got := &Set{Name: want.Name, Key: Addr4}
		if err := c.list(t.Context(), got, n); err != nil {
			t.Fatal(err)
		}
		if more, less := want.Elements.Diff(got.Elements); len(more)+len(less) > 0 {
			t.Errorf("of %d elements, %d are missing and %d too many", n, len(more), len(less))
		}
		library, err := c.nl.GetSetElements(c.set(want))
		if err != nil || len(library) != n {
			t.Errorf("the library lists %d elements, %v, want %d", len(library), err, n)
		}
	}
}

// While the kernel resizes a hash, a listing of several messages may have the
// right number of elements, some twice and others not at all.
func TestAListingInWhichAnElementComesTwiceIsNotWhole(t *testing.T) {
	for _, second := range []byte{1, 2} {
		l := listing{key: Addr4}
		l.add([]byte{10, 0, 0, 1}, nil, false)
		l.add([]byte{10, 0, 0, second}, nil, false)
		if got, want := l.into(&Set{Key: Addr4}), second == 2; got != want {
			t.Errorf("with 10.0.0.1 and 10.0.0.%d: whole %t, want %t", second, got, want)
		}
		list := []nftables.SetElement{{Key: []byte{10, 0, 0, 1}}, {Key: []byte{10, 0, 0, second}}}
		if got, want := repeats(list), second == 1; got != want {
			t.Errorf("with 10.0.0.1 and 10.0.0.%d: repeats %t, want %t", second, got, want)
		}
	}
}

// A kernel that counts elements reports their number, so that one listing is enough.
func TestTheKernelCountsWhatItLists(t *testing.T) {
	c, _ := openIn(t)
	if err := c.Commit(Diff(nil, &Table{Sets: []*Set{many(3_000)}})); err != nil {
		t.Fatal(err)
	}
	counts, err := c.lister.counts(c.table)
	if err != nil {
		t.Fatal(err)
	}
	if n, known := counts["many"]; known && n != 3_000 {
		t.Errorf("the kernel counts %d elements, want 3000", n)
	}
}

func TestAListingOfASetThatIsNotThereIsAnError(t *testing.T) {
	c, _ := openIn(t)
	if err := c.Commit(Diff(nil, &Table{})); err != nil {
		t.Fatal(err)
	}
	if err := c.list(t.Context(), &Set{Name: "none", Key: Addr4}, -1); !IsMissing(err) {
		t.Errorf("listing: %v, want that it is missing", err)
	}
}

func TestKeysHaveTheLengthOfTheirType(t *testing.T) {
	for k := Addr4; k <= lastKeyType; k++ {
		if got, want := k.length(), int(k.datatype().Bytes); got != want {
			t.Errorf("type %d has %d bytes, want %d", k, got, want)
		}
	}
}

// FuzzListing parses arbitrary bytes: it must terminate and stay in bounds.
func FuzzListing(f *testing.F) {
	whole := binary.NativeEndian.AppendUint32(nil, 20+28)
	whole = append(binary.NativeEndian.AppendUint16(whole, 0xa0c), 2, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
	whole = append(whole, 24, 0, 3, 0x80, 20, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 1, 4, 0, 9, 0)
	f.Add(slices.Concat(whole, []byte{0, 0, 0, 0}))
	f.Add([]byte{20, 0, 0, 0, 3, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})             // the end
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff}) // ENOENT
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = answers(data, 7, func(b []byte) {
			for _, e, rest, ok := nextAttribute(b); ok; _, e, rest, ok = nextAttribute(rest) {
				if len(e) >= len(b) || len(rest) >= len(b) {
					t.Fatal("an attribute is as long as the list that it is in")
				}
				_, _, _ = element(e)
			}
		})
	})
}

// It counts intervals, and lists their beginnings and ends: without that, each interval set would be listed
// until the tries are used up.
func TestTheKernelCountsIntervals(t *testing.T) {
	c, _ := openIn(t)
	var list []inet.Range
	for i := range byte(3) {
		list = append(list, inet.AddrRange(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2 * i}), 16)))
	}
	if err := c.Commit(Diff(nil, &Table{Sets: []*Set{{Name: "s", Key: Addr4, Interval: true, Ranges: list}}})); err != nil {
		t.Fatal(err)
	}
	counts, err := c.lister.counts(c.table)
	if err != nil {
		t.Fatal(err)
	}
	l := listing{key: Addr4}
	if err := c.lister.elements(c.table, "s", l.add); err != nil {
		t.Fatal(err)
	}
	n := len(l.starts) + len(l.ends)
	if count, known := counts["s"]; known && !counted(n, count, true) {
		t.Errorf("the kernel counts %d and lists %d elements of 3 intervals", count, n)
	}
}
