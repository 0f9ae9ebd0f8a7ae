// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// A process dies after each operation of a change, each a transaction of its own: the kernel accepts each,
// and the next process finds the state and completes the change.
func TestInvariant5TheNextProcessFinishesWhatADeadOneBegan(t *testing.T) {
	changes := []struct {
		name    string
		options Options // of the process that dies, and of the next
		to      *program.Program
	}{
		{"another policy", Options{}, closedProgram()},
		{"another policy and other chains", Options{Options: decide.Options{FilterHook: true}}, closedProgram()},
		{"unknown pods become open", Options{Options: decide.Options{OpenUnknown: true}}, isolated("10.244.2.9")},
	}
	inOwnNamespace(t, func(t *testing.T) {
		for _, change := range changes {
			t.Run(change.name, func(t *testing.T) {
				from := isolated("10.244.2.8", "10.244.2.9")
				old := once(t, Options{}, from)
				now := once(t, change.options, change.to)
				want := listing(t)
				conn, err := ruleset.Open(0)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				ops := nft.Diff(old, now)
				if len(ops) < 3 {
					t.Fatalf("the change has %d operations, too few to die between them", len(ops))
				}
				for k := range len(ops) + 1 {
					once(t, Options{}, from)
					for _, op := range ops[:k] {
						if err := conn.Commit([]nft.Op{op}); err != nil {
							t.Fatalf("after %d of %d operations, %q: %v", k, len(ops), op, err)
						}
					}
					once(t, change.options, change.to)
					if now := listing(t); now != want {
						t.Errorf("after %d of %d operations the next process ends at\n%s\nwant\n%s", k, len(ops), now, want)
					}
				}
			})
		}
	})
}

// once is a process that applies a program and ends; it returns what it wrote.
func once(t *testing.T, o Options, p *program.Program) *nft.Table {
	t.Helper()
	d := open(t, o)
	table := healthy(t, d, p).Table
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return table
}

// closedProgram has the pod of isolated, closed in both directions, and another pod.
func closedProgram() *program.Program {
	return &program.Program{
		Pods: []program.Pod{
			{Addr: netip.MustParseAddr("10.244.1.5"), Name: "shop/web", Ingress: "ingress4-none", Egress: "egress4-none"},
			{Addr: netip.MustParseAddr("10.244.1.6"), Name: "shop/db"},
		},
		Chains: []*program.Chain{
			{Name: "egress4-none", Direction: program.Egress, Family: inet.IPv4},
			{Name: "ingress4-none", Direction: program.Ingress, Family: inet.IPv4},
		},
	}
}
