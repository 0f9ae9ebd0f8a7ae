// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Chains of kube-router's firewall in iptables-legacy refuse packets as those in nftables do. The
// kernel notifies about neither table, so each verification reads them; chains of others are no
// problem.
func TestKubeRoutersChainsInIptablesLegacyAreAProblem(t *testing.T) {
	nothing := &program.Program{}
	for _, tables := range []string{"iptables-legacy", "ip6tables-legacy"} {
		t.Run(tables, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				run(t, tables, "-N", "KUBE-FORWARD")
				d := open(t, Options{})
				healthy(t, d, nothing)
				const chain = "KUBE-POD-FW-ABCDEFGHIJKLMNOP"
				run(t, tables, "-N", chain)
				verify(t, d)
				woken(t, d)
				r := apply(t, d, nothing)
				if len(r.Problems) != 1 || r.Problems[0].Blocking || !strings.Contains(r.Problems[0].Text,
					"1 chains of kube-router's firewall") || !strings.Contains(r.Problems[0].Text, chain+" (ip") {
					t.Errorf("problems = %+v, want one that names the chain", r.Problems)
				}
				verify(t, d)
				if r := apply(t, d, nothing); len(r.Problems) != 1 {
					t.Errorf("later: problems = %+v", r.Problems)
				}
				run(t, tables, "-X", chain)
				verify(t, d)
				woken(t, d)
				healthy(t, d, nothing)
			})
		})
	}
}

// An agent that starts on such a node reports it with its first pass.
func TestWhatIptablesLegacyHasIsSeenAtTheStart(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "iptables-legacy", "-N", "KUBE-ROUTER-FORWARD")
		r := apply(t, open(t, Options{}), isolated())
		if !slices.ContainsFunc(r.Problems, func(p decide.Problem) bool { return p.Subject == "kube-router" }) {
			t.Errorf("problems = %+v", r.Problems)
		}
	})
}
