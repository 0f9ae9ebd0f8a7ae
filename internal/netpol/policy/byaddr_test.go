// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

// colliding returns two addresses with one digest. Among 300,000 there are ten
// such pairs.
func colliding(t *testing.T) (a, b netip.Addr) {
	t.Helper()
	seen := map[uint32]netip.Addr{}
	for i := range uint32(300_000) {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+i)))
		if b, found := seen[digest(a)]; found {
			return a, b
		}
		seen[digest(a)] = a
	}
	t.Fatal("no two addresses have one digest")
	return a, b
}

func TestPodsAreFoundByTheirOwnAddressWhateverItsDigest(t *testing.T) {
	a, b := colliding(t)
	one, two := &cluster.Pod{IPs: []netip.Addr{a}}, &cluster.Pod{IPs: []netip.Addr{b}}
	again := &cluster.Pod{IPs: []netip.Addr{a}}
	x := newByAddr()
	want := func(step string, addr netip.Addr, pods ...*cluster.Pod) {
		t.Helper()
		got := x.of(addr)
		if len(got) != len(pods) || slices.ContainsFunc(pods,
			func(p *cluster.Pod) bool { return !slices.Contains(got, p) }) {
			t.Errorf("%s: %s finds %d pods, want %d", step, addr, len(got), len(pods))
		}
	}
	want("empty", a)
	x.add(a, one)
	want("one", a, one)
	want("one", b)
	x.add(b, two)
	x.add(a, again)
	want("three", a, one, again)
	want("three", b, two)
	x.remove(a, one)
	want("two", a, again)
	want("two", b, two)
	x.remove(a, again)
	want("the other", a)
	want("the other", b, two)
	x.remove(b, two)
	want("none", b)
	if len(x.one)+len(x.more) > 0 {
		t.Errorf("%d and %d digests are left behind", len(x.one), len(x.more))
	}
}
