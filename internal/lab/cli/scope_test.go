// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/trial"
)

// podEnd is an end whose pod has the label app.
func podEnd(n int, namespace, name, node, app string) end {
	key := cluster.Key{Namespace: namespace, Name: name}
	addr := []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(n / 200), byte(n % 200)})}
	labels := cluster.NewLabels(map[string]string{"app": app, "example.org/tier": "x"})
	return end{name: key.String(), short: fmt.Sprint(n + 1), place: key.String(), addrs: addr,
		pod: &cluster.Pod{Key: key, Node: node, IPs: addr, Labels: labels}}
}

func someEnds() []end {
	web := podEnd(0, "shop", "web-0", "node1", "web")
	web.workload = "web"
	return []end{web, podEnd(1, "shop", "db", "node2", "db"), podEnd(2, "node2", "db", "node1", "db"),
		{name: "203.0.113.10", place: "203.0.113.10", addrs: []netip.Addr{netip.MustParseAddr("203.0.113.10")}}}
}

func TestReferencesNameEnds(t *testing.T) {
	for ref, want := range map[string]string{
		"shop": "1100", "shop/db": "0100", "shop/web": "1000", "shop/web-0": "1000",
		"node2": "0010", "node2/": "0010", "node:node2": "0100",
		"app=db": "0110", "shop/app=db": "0100", "app!=db": "1000", "example.org/tier=x": "1110",
		"203.0.113.10": "0001", "outside": "0001",
	} {
		found, err := matching(someEnds(), "--from", []string{ref})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		got := ""
		for _, f := range found {
			got += map[bool]string{false: "0", true: "1"}[f]
		}
		if got != want {
			t.Errorf("%s names %s, want %s", ref, got, want)
		}
	}
	for _, ref := range []string{"", "shop/none", "none", "app=none", "a=b=c", "node:none", "203.0.113.11"} {
		if _, err := matching(someEnds(), "--to", []string{ref}); err == nil || !strings.Contains(err.Error(), "--to") {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestTheScopeLeavesOutWhomNobodyAskedFor(t *testing.T) {
	names := func(s scopeFlags) string {
		ends, scope, err := s.narrow(someEnds())
		if err != nil {
			return err.Error()
		}
		var list []string
		for i, e := range ends {
			list = append(list, fmt.Sprintf("%s %s %t %t", e.short, e.name, scope.from[i], scope.to[i]))
		}
		return strings.Join(list, ", ")
	}
	for want, flags := range map[string]scopeFlags{
		"1 shop/web-0 true true, 2 shop/db true true, 3 203.0.113.10 true true": {namespaces: []string{"shop"}},
		"1 shop/db true false, 2 node2/db false true":                           {from: []string{"shop/db"}, to: []string{"node2"}},
		"1 shop/db true true, 2 203.0.113.10 true false": {
			namespaces: []string{"shop"}, from: []string{"outside", "shop/db"}, to: []string{"app=db"}},
		`--namespace "x": no pod that can be tried is in it; there are node2, shop`: {namespaces: []string{"x"}},
	} {
		if got := names(flags); got != want {
			t.Errorf("%+v: %s, want %s", flags, got, want)
		}
	}
}

// many is a report of so many pods and a host outside; in each of two applications the
// pods are alike, but for those that are named.
func many(pods int, odd ...int) *runReport {
	var ends []end
	for i := range pods {
		name := fmt.Sprintf("deployment-with-a-long-name-%d", i)
		ends = append(ends, podEnd(i, "a-namespace-with-a-long-name", name, "node1", fmt.Sprint("app", i%2)))
	}
	host := netip.MustParseAddr("203.0.113.10")
	ends = append(ends, end{name: host.String(), short: fmt.Sprint(pods + 1), place: "host", addrs: []netip.Addr{host}})
	r := &runReport{Wiring: "routed",
		Services: []serviceView{{Service: "a/b", Front: "tcp 10.96.0.10:80", From: map[string]string{}}}}
	for _, e := range ends[:pods] {
		r.Services[0].From[e.name] = "1"
	}
	r.before, r.after = grid(ends, nil), grid(ends, odd)
	r.finish(nil)
	return r
}

// grid is a view in which all is open, but what goes to the odd ones.
func grid(ends []end, odd []int) *view {
	v := &view{ends: ends, ports: []port{{packet.TCP, 80}}, answers: map[flow]trial.Answer{}, scope: all(ends)}
	for src := range ends {
		for dst := range ends {
			f := flow{false, 0, src, dst}
			if _, asked := v.question(f); asked {
				v.flows, v.answers[f] = append(v.flows, f), trial.Answer{Verdict: trial.Allowed}
			}
		}
		for _, o := range odd {
			f := flow{false, 0, src, o}
			if _, asked := v.answers[f]; asked {
				v.answers[f] = trial.Answer{Verdict: trial.Denied}
			}
		}
	}
	return v
}

func TestEqualPodsAreOneRow(t *testing.T) {
	r := many(62, 4, 7)
	var sizes []int
	for _, g := range r.groups {
		sizes = append(sizes, len(g))
	}
	// Those with an even number, those with an odd one, the two that are closed, the host.
	if want := []int{30, 30, 1, 1, 1}; !cmp.Equal(sizes, want) {
		t.Errorf("groups of %v, want %v", sizes, want)
	}
	if len(r.Groups) != 2 || len(r.Endpoints) != 63 {
		t.Errorf("%d groups of several, %d endpoints in the JSON", len(r.Groups), len(r.Endpoints))
	}
	var out strings.Builder
	r.print(&out, false)
	if text := out.String(); !strings.Contains(text, "×30") || strings.Count(text, "\n") > 60 {
		t.Errorf("printed:\n%s", text)
	}
}

// Pods of one kind that reach each other in one direction only are not alike.
func TestPodsThatDifferAmongThemselvesAreTwoRows(t *testing.T) {
	ends := []end{podEnd(0, "a", "x", "node1", "x"), podEnd(1, "a", "y", "node1", "x")}
	v := grid(ends, []int{0})
	if g := groupsOf(ends, 1, v); len(g) != 2 {
		t.Errorf("groups %v", g)
	}
	if g := groupsOf(ends, 1, grid(ends, nil)); len(g) != 1 {
		t.Errorf("groups %v", g)
	}
}

func TestNoLineOfAReportIsWiderThanATerminal(t *testing.T) {
	var everyOne []int
	for i := range 40 {
		everyOne = append(everyOne, i*i%41)
	}
	for name, r := range map[string]*runReport{
		"groups": many(62, 4, 7), "no two alike": distinct(many(40, everyOne...)), "few": many(3),
	} {
		var out strings.Builder
		r.print(&out, false)
		notWider(t, name, out.String())
	}
}

// distinct has each end in a row of its own.
func distinct(r *runReport) *runReport {
	r.groups, r.Groups = r.after.single(), nil
	return r
}

func TestLinesWrapAtBlanks(t *testing.T) {
	text := strings.Repeat("word ", 30) + strings.Repeat("x", 100)
	for i, line := range strings.Split(wrap(text, "  "), "\n") {
		if n := len(line); n > columns && !strings.Contains(line, "xxx") || i > 0 && !strings.HasPrefix(line, "  ") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if got := cut("namespace/a-long-name", 11); got != "names…-name" {
		t.Errorf("cut is %q", got)
	}
}
