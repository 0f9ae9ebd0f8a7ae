// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// watching adds a pod that a chain audits whose peers are in a set.
func watching(p *program.Program, addr, name, chain, set string) *program.Program {
	p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr(addr), Name: name, AuditIngress: chain})
	p.Chains = append(p.Chains, &program.Chain{Name: chain, Direction: program.Ingress, Family: inet.IPv4,
		Rules: []program.Rule{{PeerSet: set}}})
	return p
}

// What audits pods is in force like what isolates them: a search leaves it alone.
func TestASearchTakesNoAuditAway(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		audited := func() *program.Program {
			return watching(isolated(first), "10.244.1.8", "shop/watched", "ingress4-watched", "pods4-peers")
		}
		d := open(t, Options{})
		healthy(t, d, audited())
		witness, err := ruleset.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		defer witness.Close()
		rules := func() int {
			table, err := witness.Read()
			if err != nil {
				t.Error(err)
				return 0
			}
			for _, c := range table.Chains {
				if c.Name == "audit-ingress4-watched" {
					return len(c.Rules)
				}
			}
			return 0
		}
		before := rules()
		at := func(state int) {
			if n := rules(); n != before {
				t.Errorf("state %d: the chain has %d rules, want %d", state, n, before)
			}
		}
		next := withRefused(audited())
		if states := eachState(t, at, func() { refusedOnce(t, d, next) }); states < 3 {
			t.Errorf("there were %d states: the test shows nothing", states)
		}
	})
}

// Pods whose audit the kernel refuses go on without it: they are open as before.
func TestAnAuditThatTheKernelRefusesIsLeftOut(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated(first))
		next := watching(isolated(first, second), "10.244.1.8", "x/watched", "ingress4-x", "nowhere")
		said := leftOut(refusedOnce(t, d, next))
		const want = "so they are left out and not audited: chain ingress4-x of x/watched"
		if text := said.Text; !strings.HasSuffix(text, want) || strings.Contains(text, "closed") || said.Blocking {
			t.Errorf("the problem is %+v, want %q", said, want)
		}
		if text := listing(t); !strings.Contains(text, `"x/watched" : accept`) || !strings.Contains(text, second) {
			t.Errorf("the pod is not open, or others did not go on:\n%s", text)
		}
		next = withRefused(next)
		next.Pods = append(next.Pods, program.Pod{Addr: netip.MustParseAddr("10.244.1.9"), Name: "x/too",
			Ingress: "ingress4-x"})
		said = leftOut(apply(t, d, next))
		for _, want := range []string{"closed: chain ingress4-x of x/too, chain ingress4-x1 of x/no-set",
			"; so they are left out and not audited: chain ingress4-x of x/watched"} {
			if !strings.Contains(said.Text, want) {
				t.Errorf("the problem is %+v, want %q in it", said, want)
			}
		}
	})
}
