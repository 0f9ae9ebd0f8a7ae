// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

// The listing of an interval set, in any order, gives the written ranges, or the set is foreign.
func TestIntervalsAreReadAsTheyWereWritten(t *testing.T) {
	for _, tt := range []struct {
		name, starts, ends string
		want               string
		twice              bool
	}{
		{"a range", "10.0.0.0", "10.1.0.0", "10.0.0.0/16", false},
		{"two ranges", "11.0.0.0 10.0.0.0", "12.0.0.0 10.0.0.7", "10.0.0.0-10.0.0.6 11.0.0.0/8", false},
		{"up to the last address", "224.0.0.0", "", "224.0.0.0/3", false},
		{"with the end that nft begins with", "10.0.0.0", "10.1.0.0 0.0.0.0", "10.0.0.0/16", false},
		{"that end, and up to the last address", "224.0.0.0", "0.0.0.0", "224.0.0.0/3", false},
		{"an end is missing", "10.0.0.0 11.0.0.0", "12.0.0.0", "foreign", false},
		{"all ends are missing", "10.0.0.0 11.0.0.0", "", "foreign", false},
		{"a start is missing", "10.0.0.0", "11.0.0.0 12.0.0.0", "foreign", false},
		{"an end before its start", "12.0.0.0", "11.0.0.0", "foreign", false},
		{"a start that came twice", "10.0.0.0 10.0.0.0", "11.0.0.0", "10.0.0.0/8", true},
		{"an end that came twice", "10.0.0.0", "11.0.0.0 11.0.0.0", "10.0.0.0/8", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, l := &Set{Name: "s", Key: Addr4, Interval: true}, listing{key: Addr4}
			for end, list := range map[bool]string{false: tt.starts, true: tt.ends} {
				for _, a := range strings.Fields(list) {
					l.add(netip.MustParseAddr(a).AsSlice(), nil, end)
				}
			}
			whole := l.into(s)
			var texts []string
			for _, r := range s.Ranges {
				texts = append(texts, inet.AddrRanges.FormatRange(r))
			}
			got := strings.Join(texts, " ")
			if s.Key == 0 {
				got = "foreign"
			}
			if got != tt.want || whole == tt.twice {
				t.Errorf("got %s, whole: %t; want %s, %t", got, whole, tt.want, !tt.twice)
			}
		})
	}
}

// A range up to the last port or address has no end: an end at 0 would be one without a start.
func TestTheLastOfAKindHasNoNext(t *testing.T) {
	for _, tt := range []struct {
		key        KeyType
		last, next inet.Element
	}{
		{Port, inet.Element{Port: 65535}, inet.Element{}},
		{Port, inet.Element{Port: 65534}, inet.Element{Port: 65535}},
		{Addr4, inet.Element{Addr: netip.MustParseAddr("255.255.255.255")}, inet.Element{}},
		{Addr4, inet.Element{Addr: netip.MustParseAddr("10.255.255.255")}, inet.Element{Addr: netip.MustParseAddr("11.0.0.0")}},
		{Addr6, inet.Element{Addr: netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}, inet.Element{}},
	} {
		got, ok := tt.key.next(tt.last)
		if want := tt.next != (inet.Element{}); ok != want || ok && got != tt.next {
			t.Errorf("after %v comes %v, %t; want %v, %t", tt.last, got, ok, tt.next, want)
		}
	}
}
