// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

const (
	webPod        = "10.244.1.5"
	first, second = "10.244.2.5", "10.244.2.6"
	elsewhere     = "10.244.9.9"
)

func TestTheSetsAreBounded(t *testing.T) {
	c := New(Options{})
	c.refused = refusedMany(MaxRefused)
	todo := &Decision{Refuse: refusedMore(10, ""), Admit: refusedFirst(c, 3)}
	c.bound(todo)
	if n := len(c.refused) + len(todo.Refuse) - len(todo.Admit); n != MaxRefused {
		t.Errorf("%d would be refused, want %d", n, MaxRefused)
	}
	for r := range todo.Admit {
		if c.refused[r].number > 10 {
			t.Errorf("the %dth goes, which is not one of the oldest", c.refused[r].number)
		}
	}
}

// A tenant with very many cut connections loses its own refusals and nobody else's.
func TestAFloodOfCutsDrivesOutNobodyElsesRefusals(t *testing.T) {
	c := New(Options{})
	turn := func(add map[program.Refused]string) {
		t.Helper()
		todo := &Decision{Refuse: add, Admit: map[program.Refused]bool{}}
		c.bound(todo)
		c.Committed(todo)
		if len(c.refused) > MaxRefused {
			t.Fatalf("%d are refused", len(c.refused))
		}
	}
	quiet := map[program.Refused]string{}
	for i := range 100 {
		quiet[program.Refused{Protocol: inet.SCTP, SrcPort: uint16(i)}] = "quiet"
	}
	turn(quiet) // the oldest of all
	for i := range 20 {
		add := map[program.Refused]string{}
		for n := range 4096 {
			add[program.Refused{Protocol: inet.TCP, SrcPort: uint16(n), DstPort: uint16(i)}] = "flood"
		}
		turn(add)
	}
	held := map[string]int{}
	for _, known := range c.refused {
		held[known.tenant]++
	}
	if held["quiet"] != 100 || held["flood"] != MaxRefused-100 {
		t.Errorf("refused are %v", held)
	}
	for r, known := range c.refused {
		if known.tenant == "flood" && r.DstPort < 4 {
			t.Fatalf("%+v is one of the oldest and still there", r)
		}
	}
}

func refusedMany(n int) map[program.Refused]refusal {
	m := map[program.Refused]refusal{}
	for i := range n {
		m[program.Refused{Protocol: inet.TCP, SrcPort: uint16(i),
			DstPort: uint16(i >> 16)}] = refusal{number: uint64(i)}
	}
	return m
}

func refusedMore(n int, tenant string) map[program.Refused]string {
	m := map[program.Refused]string{}
	for i := range n {
		m[program.Refused{Protocol: inet.UDP, SrcPort: uint16(i)}] = tenant
	}
	return m
}

func refusedFirst(c *Decider, n uint64) map[program.Refused]bool {
	m := map[program.Refused]bool{}
	for r, at := range c.refused {
		if at.number < n {
			m[r] = true
		}
	}
	return m
}

// Of very many refused connections a change has those judged that it concerns.
func TestAChangeHasTheRefusedConnectionsJudgedThatItConcerns(t *testing.T) {
	first, second, elsewhere := netip.MustParseAddr(first), netip.MustParseAddr(second), netip.MustParseAddr(elsewhere)
	pods := []program.Pod{{Addr: first, Name: "a/p", Tenant: "a", Ingress: "ingress4-a"},
		{Addr: second, Name: "b/p", Tenant: "b", Ingress: "ingress4-b"}}
	both := func() *program.Program {
		return &program.Program{Pods: slices.Clone(pods), Chains: []*program.Chain{
			{Name: "ingress4-a", Direction: program.Ingress, Family: inet.IPv4},
			{Name: "ingress4-b", Direction: program.Ingress,
				Family: inet.IPv4}}}
	}
	at := func(a netip.Addr) program.Refused {
		return program.Refused{Protocol: inet.TCP, Src: a, Dst: elsewhere, SrcPort: 80, DstPort: 40000}
	}
	of := map[program.Refused]string{at(first): "a", at(second): "b"}
	opened := both()
	opened.Pods[0].Ingress = ""
	for _, tt := range []struct {
		name   string
		next   *program.Program
		node   []netip.Addr
		change func(c *Decider)
		judged string // whose are judged
	}{
		{"nothing", both(), nil, nil, ""},
		{"a is open", opened, nil, nil, "a"},
		{"the node has another address", both(), []netip.Addr{elsewhere}, nil, "a b"},
		{"an earlier process left one", both(), nil, func(c *Decider) { c.refused[at(second)] = refusal{tenant: "as it was"} }, "b"},
		{"nothing was judged yet", both(), nil, func(c *Decider) { c.asked = asked{} }, "a b"},
	} {
		c := New(Options{})
		ask := func(p *program.Program, node []netip.Addr) {
			todo := &Decision{Judge: cut.NewJudge(p, node, nil), Admit: map[program.Refused]bool{}}
			if c.ask(p, node, map[netip.Addr]bool{}, time.Unix(0, 0), todo); len(todo.Admit) > 0 {
				t.Errorf("%s: %v go", tt.name, todo.Admit)
			}
		}
		c.Committed(&Decision{Refuse: of})
		ask(both(), nil)
		for r, known := range c.refused {
			if known.tenant != of[r] || !known.allowed.IsZero() {
				t.Errorf("%s: of %v is known %+v", tt.name, r, known)
			}
			known.tenant = "as it was"
			c.refused[r] = known
		}
		if tt.change != nil {
			tt.change(c)
		}
		ask(tt.next, tt.node)
		var judged []string
		for r, known := range c.refused {
			if known.tenant != "as it was" || !known.allowed.IsZero() {
				judged = append(judged, of[r])
			}
		}
		slices.Sort(judged)
		if got := strings.Join(judged, " "); got != tt.judged {
			t.Errorf("%s: those of %q are judged, want %q", tt.name, got, tt.judged)
		}
	}
}

// Own changes are paid by the pod's namespace; what others' pods did is paid from
// an account of its own; nobody is the node.
func TestWhoseChangeNeedsAScanPays(t *testing.T) {
	at := netip.MustParseAddr
	before := &program.Program{Pods: []program.Pod{{Addr: at(first), Tenant: "gone"}}}
	now := &program.Program{Pods: []program.Pod{{Addr: at(webPod), Tenant: "a", Ingress: "x"},
		{Addr: at(second), Tenant: "b"}}}
	out := Decision{Scan: cut.Scopes{}, Recheck: cut.Scopes{}}
	scopes := out.Scan
	scan(&out, before, now, cut.Change{Denied: []netip.Addr{at(webPod)}, Shrunk: []netip.Addr{at(second)},
		Left: []netip.Addr{at(first)}})
	a, b, gone := scopes[cut.Payer{Tenant: "a"}], scopes[cut.Payer{Tenant: "b", Members: true}],
		scopes[cut.Payer{Tenant: "gone"}]
	if len(scopes) != 3 || a == nil || !a.Touched[at(webPod)] || b == nil || !b.Touched[at(second)] ||
		gone == nil || gone.Left[at(first)] != "gone" {
		t.Errorf("payers are %v", slices.Collect(maps.Keys(scopes)))
	}
	if p := payerOf(now, []netip.Addr{at(second), at(webPod)}); p != (cut.Payer{Tenant: "a"}) {
		t.Errorf("who isolated a pod on a bridge does not pay, but %+v", p)
	}
	if p := payerOf(now, []netip.Addr{at(second)}); p != (cut.Payer{}) {
		t.Errorf("where nobody isolated a pod the node does not pay, but %+v", p)
	}
}
