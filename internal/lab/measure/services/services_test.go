// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/bench"
)

func TestSizesAreRead(t *testing.T) {
	for text, want := range map[string]Size{
		"1000x50":          {Services: 1000, Endpoints: 50},
		"10x2-ipv6":        {Services: 10, Endpoints: 2, IPv6: true},
		"10x2-bridge":      {Services: 10, Endpoints: 2, Bridge: true},
		"10x2-ipv6-bridge": {Services: 10, Endpoints: 2, IPv6: true, Bridge: true},
	} {
		if s, err := ParseSize(text); err != nil || s != want {
			t.Errorf("%s is %v, %v", text, s, err)
		}
	}
	for _, bad := range []string{"", "10x2-", "10x2-ipv4", "10x2-bridge-ipv6", "10x2-ipv6bridge",
		"1000", "x2", "1000x", "2x2", "10x0", "10x201", "60001x2", "1000x2x3", "10 x 2"} {
		if s, err := ParseSize(bad); err == nil || !strings.Contains(err.Error(), "SERVICESxENDPOINTS") {
			t.Errorf("%q is %v, %v", bad, s, err)
		}
	}
}

// Each front of the largest size is another address, and none reads as the head of an attribute (package witness),
// also by the last four bytes of an IPv6 address.
func TestAddressesAreApart(t *testing.T) {
	for _, size := range []Size{{}, {IPv6: true}} {
		seen := map[[4]byte]bool{}
		add := func(a netip.Addr) {
			b := a.AsSlice()
			last := [4]byte(b[len(b)-4:])
			if a.Is6() != size.IPv6 || last[0] < 10 || last[0] == 10 && last[1] < 64 {
				t.Errorf("address %s", a)
			}
			seen[last] = true
		}
		for i := range maxServices {
			add(size.clusterAddr(i))
		}
		for i := range maxEndpoints {
			add(size.serverAddr(i))
		}
		add(size.clientAddr())
		add(size.freshAddr(1))
		if len(seen) != maxServices+maxEndpoints+2 {
			t.Errorf("%d addresses, want %d", len(seen), maxServices+maxEndpoints+2)
		}
		if r := size.podRange(); !r.Contains(size.clientAddr()) || !r.Contains(size.serverAddr(maxEndpoints-1)) ||
			r.Contains(size.clusterAddr(0)) || r != r.Masked() {
			t.Errorf("the node's pods are in %s", r)
		}
	}
}

// No namespace has more than an agent serves (docs/limits.md), at the largest size that the addresses have room for.
func TestNamespacesKeepTheirBudget(t *testing.T) {
	const budget = 262_144
	all := map[string]int{}
	for i := range maxServices {
		all[namespace(i)] += 1 + maxEndpoints
	}
	for name, n := range all {
		if n > budget {
			t.Errorf("namespace %s has %d fronts and endpoints, more than %d", name, n, budget)
		}
	}
}

func TestNinetyNineOfAHundred(t *testing.T) {
	var list []time.Duration
	for i := range 200 {
		list = append(list, time.Duration(200-i))
	}
	if got := late(list); len(got) != 1 || got[0] != 198 {
		t.Errorf("99 of 100 of 1 to 200 are within %v", got)
	}
	if got := late(list[:1]); len(got) != 1 || got[0] != 200 || late(nil) != nil {
		t.Errorf("of one value %v, of none %v", got, late(nil))
	}
}

// What a Service adds is the difference to a pod without a proxy in the same round, and kube-proxy's is the base.
func TestTheReportComparesWhatServicesAdd(t *testing.T) {
	l := newLevel(Size{Services: 10_000, Endpoints: 2})
	l.order = []string{podwall, oneService, nftables}
	for _, k := range kinds() {
		l.add(podwall, k, 1050, 1300)
		l.add(oneService, k, 1000, 1100)
		l.add(nftables, k, 1000, 1600)
	}
	l.control[podwall] = figures{sync: 2 * time.Second, changes: []time.Duration{time.Millisecond}, memory: 70 * mebi,
		rush: []time.Duration{time.Millisecond, 60 * time.Millisecond}, share: 0.2, rewritten: 2}
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
	if s := row("99 of 100 within", podwall); *s.Met || s.Value.Median != 60 || !*row("part of a core", podwall).Met {
		t.Errorf("many changes: %+v, want 60 ms, which does not meet the bar", s)
	}
	if s := row("the kernel is sent", podwall); s.Value.Median != 2 {
		t.Errorf("restart: %+v, want 2 changes", s)
	}
	for i, row := range r.Rows[1:] {
		for _, later := range r.Rows[i+1:] {
			if later.Section == r.Rows[i].Section && row.Section != later.Section {
				t.Fatalf("the rows of %q are not together", later.Section)
			}
		}
	}
}
