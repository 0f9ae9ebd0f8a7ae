// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
)

// The version of policies in the status is one that the kernel has: not before the commit, and not while a
// policy waits for its namespace's share of time. What changes nothing counts without a pass.
func TestTheVersionOfPoliciesIsThatOfTheKernel(t *testing.T) {
	r := &recorder{}
	run(t, r, func(l *agent.Loop, settle func()) {
		l.Observer.TellVersions(l.Store.PolicyVersion)
		heard := func(version string, change func(tx *cluster.Tx)) {
			l.Store.Update(func(tx *cluster.Tx) {
				change(tx)
				tx.HeardPolicies(version)
			})
		}
		is := func(want, when string) {
			t.Helper()
			if got := l.Observer.Status().PolicyVersion; got != want {
				t.Errorf("%s: version %q, want %q", when, got, want)
			}
		}
		settle()
		is("", "no version was heard")
		heard("5", func(tx *cluster.Tx) { tx.SetPolicy(policy("p", "db")) })
		is("", "before the commit")
		settle()
		is("5", "after it")
		heard("6", func(*cluster.Tx) {})
		is("6", "nothing changed")
		r.fail = []error{unix.EBUSY, unix.EBUSY, unix.EBUSY}
		heard("7", func(tx *cluster.Tx) { tx.SetPolicy(policy("p", "db", "web")) })
		settle()
		is("5", "the kernel refuses")
		for range 10 {
			settle()
		}
		is("7", "the kernel took it")
		r.report = datapath.Report{Held: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
		heard("8", func(tx *cluster.Tx) { tx.SetPolicy(policy("p", "db")) })
		settle()
		is("8", "a pod is held, and closed")
		r.report = datapath.Report{}
		var during []string // what the status says in each pass
		r.applying = func() { during = append(during, l.Observer.Status().PolicyVersion) }
		heard("9", func(tx *cluster.Tx) {
			tx.SetPolicy(giant("tenant"))
			tx.SetPod(pod("db", "node2", "10.0.0.2"))
		})
		for range 10 {
			settle()
		}
		is("9", "nothing waits any longer")
		if len(during) < 2 || slices.Contains(during, "9") {
			t.Errorf("while the giant waits, in each pass: %q", during)
		}
	})
}

// giant is a policy that lets others go first.
func giant(namespace string) *cluster.Policy {
	apps := make([]string, 2000)
	for i := range apps {
		apps[i] = "db"
	}
	p := policy("giant", apps...)
	p.Key.Namespace = namespace
	return p
}
