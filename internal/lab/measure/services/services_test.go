// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/bench"
)

func TestSizesAreRead(t *testing.T) {
	if s, err := ParseSize("1000x50"); err != nil || s != (Size{1000, 50}) {
		t.Errorf("1000x50 is %v, %v", s, err)
	}
	for _, bad := range []string{"", "1000", "x2", "1000x", "1x2", "10x0", "10x201", "60001x2", "1000x2x3", "10 x 2"} {
		if s, err := ParseSize(bad); err == nil || !strings.Contains(err.Error(), "SERVICESxENDPOINTS") {
			t.Errorf("%q is %v, %v", bad, s, err)
		}
	}
}

// Each front of the largest size is another address, and none reads as the head of an attribute (package witness).
func TestAddressesAreApart(t *testing.T) {
	seen := map[string]bool{}
	for i := range maxServices {
		seen[clusterAddr(i).String()] = true
	}
	for i := range maxEndpoints {
		seen[serverAddr(i).String()] = true
	}
	seen[clientAddr().String()], seen[freshAddr(1).String()] = true, true
	if len(seen) != maxServices+maxEndpoints+2 {
		t.Errorf("%d addresses, want %d", len(seen), maxServices+maxEndpoints+2)
	}
}

// What a Service adds is the difference to a pod without a proxy in the same round, and kube-proxy's is the base.
func TestTheReportComparesWhatServicesAdd(t *testing.T) {
	l := newLevel(Size{10_000, 2})
	l.order = []string{podwall, oneService, nftables}
	for _, k := range kinds() {
		l.add(podwall, k, 1050, 1300)
		l.add(oneService, k, 1000, 1100)
		l.add(nftables, k, 1000, 1600)
	}
	l.control[podwall] = figures{sync: 2 * time.Second, changes: []time.Duration{time.Millisecond}, memory: 70 * mebi}
	l.control[nftables] = figures{sync: time.Second, changes: []time.Duration{time.Second}, memory: 200 * mebi}
	var r bench.Report
	l.rows(&r, false)
	row := func(section, name string) bench.Row {
		for _, row := range r.Rows {
			if strings.HasSuffix(row.Section, section) && row.Name == name {
				return row
			}
		}
		t.Fatalf("no row %q of %s", section, name)
		return bench.Row{}
	}
	first := row("first packet of a flow, what a Service adds", podwall)
	if first.Ratio == nil || first.Ratio.Median != 0.5 || first.Met == nil || !*first.Met {
		t.Errorf("first packet: %+v, want 0.5 of kube-proxy's, which meets the bar", first)
	}
	if e := row("next to plain DNAT", podwall); e.Ratio.Median < 1.18 || *e.Met {
		t.Errorf("established packet: %+v, want above the bar", e)
	}
	if s := row("start to the first sync", podwall); *s.Met || row("start to the first sync", nftables).Bar != nil {
		t.Errorf("first sync: %+v, want a bar that is not met, and none for another program", s)
	}
	for i, row := range r.Rows[1:] {
		for _, later := range r.Rows[i+1:] {
			if later.Section == r.Rows[i].Section && row.Section != later.Section {
				t.Fatalf("the rows of %q are not together", later.Section)
			}
		}
	}
}
