// SPDX-License-Identifier: Apache-2.0

package expand

import (
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/fakenft"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// TB is what Check needs of a test, so that property tests can use it too.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Check plays a replay for a node. After every step the program that follows
// the changes equals the one computed from the whole cluster, byte for byte,
// and a kernel that got the differences holds what a kernel holds that was
// loaded anew. At the end both equal what the last cluster alone leads to.
// It returns the number of steps that changed something.
func Check(t TB, r Replay, node string) int {
	t.Helper()
	store := cluster.NewStore()
	store.Allow(cluster.Allowance{Audit: true, AuditNamespaces: true})
	p := player{store: store, index: policy.NewIndex(node), node: node,
		kernel: fakenft.Kernel{ID: ruleset.Table()}}
	changed := 0
	for i, s := range r.Steps {
		p.store.Update(func(tx *cluster.Tx) {
			for _, e := range s {
				e.apply(tx)
			}
		})
		if p.follow(t, r.Name, i) {
			changed++
		}
	}
	snap := p.store.Snapshot()
	if len(snap.Pods) != len(r.Last.Pods) || len(snap.Policies) != len(r.Last.Policies) ||
		len(snap.Namespaces) != len(r.Last.Namespaces) {
		t.Fatalf("%s ends with %d namespaces, %d pods, %d policies: not the last cluster", r.Name,
			len(snap.Namespaces), len(snap.Pods), len(snap.Policies))
	}
	want := compile.Program(policy.Resolve(r.Last, node), compile.Options{})
	same(t, r.Name, "at the end, program", want.String(), p.program.String())
	same(t, r.Name, "at the end, table", ruleset.Render(want, program.Node{}).String(), p.kernel.Table().String())
	return changed
}

// player is an agent without a node: it takes what changed, compiles, and
// commits the difference.
type player struct {
	store   *cluster.Store
	index   *policy.Index
	node    string
	layout  *policy.Layout  // of chains
	chains  *compile.Layout // compiled once for a layout, as the agent does
	program *program.Program
	text    string     // of the program
	table   *nft.Table // nil before the first commit
	kernel  fakenft.Kernel
}

// follow takes one step in and reports whether it changed the program.
func (p *player) follow(t TB, name string, step int) bool {
	t.Helper()
	p.index.Apply(p.store.Take())
	m := p.index.Model()
	if p.chains == nil || p.layout != m.Layout {
		p.layout, p.chains = m.Layout, compile.NewLayout(m.Layout, compile.Options{})
	}
	next := p.chains.Program(m.Sets)
	text := next.String()
	want := compile.Program(policy.Resolve(p.store.Snapshot(), p.node), compile.Options{})
	at := fmt.Sprintf("%s: step %d", name, step)
	same(t, at, "program", want.String(), text)
	if p.table != nil && text == p.text {
		return false
	}
	p.program, p.text = next, text
	p.commit(t, at, ruleset.Render(want, program.Node{}).String())
	return true
}

// commit sends the difference to the kernel; want is the text of a table that
// was rendered from nothing.
func (p *player) commit(t TB, at, want string) {
	t.Helper()
	desired := ruleset.Render(p.program, program.Node{})
	ops := nft.Diff(p.table, desired)
	if err := p.kernel.Commit(ops); err != nil {
		t.Fatalf("%s: the kernel refuses: %v", at, err)
	}
	if slices.ContainsFunc(ops, func(o nft.Op) bool { return o.Kind == nft.DeleteTable }) {
		t.Fatalf("%s: the table is replaced as a whole", at)
	}
	p.table = desired
	same(t, at, "table", want, p.kernel.Table().String())
}

func same(t TB, at, what, want, got string) {
	t.Helper()
	if want != got {
		t.Fatalf("%s: %s, recomputed (-), from the changes (+):\n%s", at, what, cmp.Diff(want, got))
	}
}
