// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"testing"
)

// A range without some addresses holds every other one of it, once.
func TestARangeWithoutAddresses(t *testing.T) {
	for _, tt := range []struct {
		from string
		less []string
		want int // addresses left
	}{
		{"10.96.0.0/24", nil, 256},
		{"10.96.0.0/24", []string{"10.96.0.0"}, 255},
		{"10.96.0.0/24", []string{"10.96.0.255", "10.96.0.1", "10.97.0.1", "fd00::1"}, 254},
		{"10.96.0.7/32", []string{"10.96.0.7"}, 0},
		{"0.0.0.0/0", []string{"255.255.255.255"}, 1<<32 - 1},
		{"fd00::/118", []string{"fd00::3ff"}, 1023},
	} {
		var less []netip.Addr
		for _, a := range tt.less {
			less = append(less, netip.MustParseAddr(a))
		}
		r, count := netip.MustParsePrefix(tt.from), 0
		left := without(r, less)
		for i, p := range left {
			count += 1 << (p.Addr().BitLen() - p.Bits())
			if !r.Overlaps(p) || p.Masked() != p || contains(left[:i], p.Addr()) {
				t.Errorf("%s without %v: %v", r, less, left)
			}
			for _, a := range less {
				if p.Contains(a) {
					t.Errorf("%s without %v holds %s", r, less, a)
				}
			}
		}
		if count != tt.want {
			t.Errorf("%s without %v has %d addresses, want %d", r, less, count, tt.want)
		}
	}
}
