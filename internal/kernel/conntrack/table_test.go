// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conntrack

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
)

func same(a, b netip.Addr) bool { return a == b }

// sample holds an entry of each kind that the package knows.
func sample() []inet.Connection {
	picked := entry(inet.TCP, "10.0.0.3:33003", "10.0.0.2:80")
	picked.PickedUp = true
	finished := entry(inet.TCP, "10.0.0.5:33005", "10.0.0.8:80")
	finished.Finished = true
	opening := entry(inet.TCP, "10.0.0.6:33006", "10.0.0.8:80")
	opening.Opening = true
	zoned := entry(inet.TCP, "10.0.0.1:33001", "10.0.0.2:80")
	zoned.Zone = 7
	translated := entry(inet.UDP, "10.0.0.4:33004", "10.96.0.10:53")
	translated.Reply.Src, translated.Reply.SrcPort = netip.MustParseAddr("10.0.0.2"), 5353
	balanced := entry(inet.UDP, "10.0.0.7:33007", "10.96.0.10:53")
	balanced.Reply.Src, balanced.Reply.SrcPort, balanced.Balanced = netip.MustParseAddr("10.0.0.9"), 53, true
	port := entry(inet.UDP, "10.0.0.8:33008", "10.0.0.9:53")
	port.Reply.SrcPort, port.Balanced = 5353, true
	ping := entry(icmp, "10.0.0.1:0", "10.0.0.2:0")
	ping.Orig.ICMP, ping.Reply.ICMP = ICMP{ID: 77, Type: 8}, ICMP{ID: 77}
	ping6 := entry(icmpv6, "[fd00::1]:0", "[fd00::2]:0")
	ping6.Orig.ICMP, ping6.Reply.ICMP = ICMP{ID: 78, Type: 128}, ICMP{ID: 78, Type: 129}
	return []inet.Connection{
		entry(inet.TCP, "10.0.0.1:33001", "10.0.0.2:80"), zoned, picked, finished, opening, translated, balanced, port,
		ping,
		entry(inet.TCP, "[fd00::1]:33001", "[fd00::2]:80"), entry(inet.SCTP, "[fd00::1]:5000", "[fd00::2]:5001"), ping6,
	}
}

type ICMP = inet.ICMP

// listing returns the result of a dump, in a fixed order and without values that the kernel chose.
func listing(list []inet.Connection) []inet.Connection {
	list = slices.Clone(list)
	for i := range list {
		list[i].ID = [4]byte{}
	}
	slices.SortFunc(list, func(a, b inet.Connection) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Orig.Src.Compare(b.Orig.Src), cmp.Compare(a.Zone, b.Zone))
	})
	return list
}

func dump(t testing.TB, c *Conn, f inet.Family) []inet.Connection {
	t.Helper()
	var list []inet.Connection
	check(t, c.Dump(f, func(e *inet.Connection) { list = append(list, *e) }))
	return list
}

func TestADumpReturnsWhatIsInTheTable(t *testing.T) {
	c := inside(t)
	check(t, c.create(sample()))
	got := dump(t, c, 0)
	if diff := gocmp.Diff(listing(sample()), listing(got), gocmp.Comparer(same)); diff != "" {
		t.Errorf("entries (-made +dumped):\n%s", diff)
	}
	for _, e := range got {
		if e.ID == [4]byte{} {
			t.Errorf("%+v has no id", e)
		}
	}
	for _, f := range inet.Families {
		for _, e := range dump(t, c, f) {
			if inet.FamilyOf(e.Orig.Src) != f {
				t.Errorf("a dump of IPv%d holds %+v", f, e)
			}
		}
	}
	if n, limit, err := c.Count(); err != nil || n != uint32(len(sample())) || limit < n {
		t.Errorf("the count is %d of %d, error %v", n, limit, err)
	}
}

func TestTheKernelFindsTheEntriesOfAnAddress(t *testing.T) {
	c := inside(t)
	check(t, c.create(sample()))
	tests := []struct {
		addr string
		want int
	}{
		{"10.0.0.1", 3}, // begins
		{"10.0.0.2", 5}, // answers, also behind a Service
		{"fd00::2", 3},
		{"10.96.0.10", 0}, // neither
		{"10.0.0.9", 2},
		{"10.0.0.19", 0},
	}
	for _, tt := range tests {
		n := 0
		check(t, c.DumpAddress(netip.MustParseAddr(tt.addr), func(e *inet.Connection) {
			if n++; e.Orig.Src.String() != tt.addr && e.Reply.Src.String() != tt.addr {
				t.Errorf("%s: got %+v", tt.addr, e)
			}
		}))
		if n != tt.want {
			t.Errorf("%s: %d entries, want %d", tt.addr, n, tt.want)
		}
	}
}

func TestTheKernelFindsTheEntriesOfAProtocol(t *testing.T) {
	c := inside(t)
	check(t, c.create(sample()))
	type kind struct {
		family   inet.Family
		protocol inet.Protocol
	}
	want := map[kind]int{}
	for _, e := range sample() {
		want[kind{inet.FamilyOf(e.Orig.Src), e.Protocol}]++
	}
	for _, f := range inet.Families {
		for _, p := range []inet.Protocol{inet.UDP, inet.TCP, inet.SCTP, 47} {
			n := 0
			check(t, c.DumpProtocol(f, p, func(e *inet.Connection) {
				if n++; inet.FamilyOf(e.Orig.Src) != f || e.Protocol != p {
					t.Errorf("IPv%d, protocol %d: got %+v", f, p, e)
				}
			}))
			if n != want[kind{f, p}] {
				t.Errorf("IPv%d, protocol %d: %d entries, want %d", f, p, n, want[kind{f, p}])
			}
		}
	}
}

func TestADeletionTakesThatEntryAndNoOther(t *testing.T) {
	c := inside(t)
	check(t, c.create(sample()))
	for left := len(sample()); left > 0; left-- {
		list := dump(t, c, 0)
		if len(list) != left {
			t.Fatalf("%d entries are left, want %d", len(list), left)
		}
		other := list[0]
		other.ID[0]++
		if n, err := c.Delete([]inet.Connection{other}); n != 0 || err != nil {
			t.Errorf("%+v with another id: deleted %d, error %v", list[0], n, err)
		}
		if n, err := c.Delete([]inet.Connection{list[0], list[0]}); n != 1 || err != nil {
			t.Errorf("%+v, twice: deleted %d, error %v", list[0], n, err)
		}
	}
}

func TestAnEntryWithoutAddressesDeletesNothing(t *testing.T) {
	c := inside(t)
	check(t, c.create(sample()))
	if _, err := c.Delete([]inet.Connection{{Protocol: inet.TCP}}); err == nil ||
		!strings.Contains(err.Error(), "no addresses") {
		t.Errorf("error is %v", err)
	}
	if n := len(dump(t, c, 0)); n != len(sample()) {
		t.Errorf("%d entries are left of %d", n, len(sample()))
	}
}

func TestMoreEntriesThanOneAnswerHolds(t *testing.T) {
	c := inside(t)
	made := many(5000)
	check(t, c.create(made))
	got := dump(t, c, inet.IPv4)
	if len(got) != len(made) {
		t.Fatalf("%d entries in the dump, want %d", len(got), len(made))
	}
	if n, err := c.Delete(got); n != len(made) || err != nil {
		t.Errorf("deleted %d, error %v", n, err)
	}
	if n := len(dump(t, c, 0)); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// A malformed answer must not crash the agent.
func FuzzDecode(f *testing.F) {
	c := &Conn{}
	for _, e := range sample() {
		b := tuple(c.begin(subsystem, 0, inet.FamilyOf(e.Orig.Src)), attrOrig, e.Protocol, e.Orig)
		f.Add(protoInfo(tuple(b, attrReply, e.Protocol, e.Reply), e)[16:])
	}
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) {
		var e inet.Connection
		decode(b, &e)
		_ = c.messages(b, func(uint16, []byte) error { return nil })
	})
}

const benchEntries = 200_000

func full(b *testing.B) *Conn {
	b.Helper()
	c := inside(b)
	check(b, c.create(many(benchEntries)))
	return c
}

func BenchmarkDump(b *testing.B) {
	c := full(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		check(b, c.Dump(inet.IPv4, func(*inet.Connection) { n++ }))
		if n != benchEntries {
			b.Fatalf("%d entries", n)
		}
	}
}

// The table has entries of TCP only, as one of a node with many of them has nearly.
func BenchmarkDumpProtocol(b *testing.B) {
	c := full(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		check(b, c.DumpProtocol(inet.IPv4, inet.UDP, func(*inet.Connection) { n++ }))
		if n != 0 {
			b.Fatalf("%d entries", n)
		}
	}
}

func BenchmarkDumpAddress(b *testing.B) {
	c := full(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		check(b, c.DumpAddress(netip.AddrFrom4([4]byte{10, 244, 1, 7}), func(*inet.Connection) { n++ }))
		if n != benchEntries/200 {
			b.Fatalf("%d entries", n)
		}
	}
}

func BenchmarkDelete(b *testing.B) {
	c := full(b)
	list := dump(b, c, 0)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		k := (i * 1000) % (len(list) - 1000)
		if _, err := c.Delete(list[k : k+1000]); err != nil {
			b.Fatal(err)
		}
	}
}
