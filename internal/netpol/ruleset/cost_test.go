// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/lab/testkit/baseline"
	"github.com/podwall/podwall/internal/lab/testkit/scale"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"

	"github.com/podwall/podwall/internal/kernel/nft"
)

// wire is a kernel that takes everything and counts it.
type wire struct {
	conn            *nft.Conn
	messages, bytes int
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{}
	nl, err := nftables.New(nftables.WithTestDial(func(list []netlink.Message) (acks []netlink.Message, err error) {
		for _, m := range list {
			w.messages++
			w.bytes += len(m.Data) + 16
			if m.Header.Flags&netlink.Acknowledge != 0 {
				acks = append(acks, netlink.Message{Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence, PID: m.Header.PID}, Data: make([]byte, 4)})
			}
		}
		return acks, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	w.conn = nft.Over(nl, Table())
	return w
}

// line is the path from a store to the messages for the kernel.
type line struct {
	scale.Shape
	store    *cluster.Store
	index    *policy.Index
	in       *convert.Interner
	layout   *policy.Layout
	chains   *compile.Layout
	renderer Renderer
	table    *nft.Table
	wire     *wire
}

// pass does what the agent does with what changed, and returns what it cost.
func (l *line) pass(t *testing.T) (costs map[string]int) {
	t.Helper()
	l.index.Apply(l.store.Take())
	m := l.index.Model()
	if l.layout != m.Layout {
		l.layout, l.chains = m.Layout, compile.NewLayout(m.Layout, compile.Options{})
	}
	next := l.renderer.Render(l.chains.Program(m.Sets), program.Node{})
	ops := nft.Diff(l.table, next)
	l.table = next
	*l.wire = wire{conn: l.wire.conn}
	if err := l.wire.conn.Commit(ops); err != nil {
		t.Fatal(err)
	}
	elements := 0
	for _, op := range ops {
		elements += op.Elements()
	}
	return map[string]int{"messages": l.wire.messages, "bytes": l.wire.bytes, "elements": elements}
}

// What goes to the kernel for a change in the cluster of the reference setup, and
// what the whole table is, must not grow. Rewrite with make golden.
func TestCostsInTheKernelDoNotGrow(t *testing.T) {
	l := &line{Shape: scale.Seed(), store: cluster.NewStore(), index: policy.NewIndex(scale.NodeName(0)), in: convert.NewInterner(), wire: newWire(t)}
	l.Fill(l.store)
	costs := map[string]baseline.Cost{}
	note := func(name string, of map[string]int) {
		for what, n := range of {
			costs[name+"/"+what] = baseline.Cost{Count: float64(n)}
		}
	}
	note("whole-table", l.pass(t))
	note("whole-table", map[string]int{"sets": len(l.table.Sets), "chains": len(l.table.Chains)})
	for _, step := range l.steps() {
		l.store.Update(step.change)
		note(step.name, l.pass(t))
	}
	note("nothing", l.pass(t))
	baseline.Check(t, "costs.txt", costs)
}

type step struct {
	name   string
	change func(tx *cluster.Tx)
}

// steps are changes that follow each other.
func (l *line) steps() []step {
	remote := l.in.Pod(l.Pod(1 + l.Pods)) // namespace 1
	remote.Node = scale.NodeName(1)
	relabelled := *remote
	relabelled.Labels = cluster.NewLabels(map[string]string{"app": "app-0", "role": "role-1"})
	other := relabelled
	other.Labels = cluster.NewLabels(map[string]string{"app": "app-0", "role": "role-1", "nobody": "asks"})
	local := l.in.Pod(l.Pod(0)) // a policy selects its like already
	local.Key.Name, local.IPs = "new", l.in.Pod(l.Pod(2+l.Pods)).IPs
	np := l.Policy(0)
	np.Name = "extra"
	extra, _ := convert.Policy(np)
	shared := convert.Namespace(l.Namespace(0)) // has the label tier=shared
	plain := convert.Namespace(l.Namespace(1))
	plain.Name = shared.Name
	return []step{
		{"remote-pod-comes", func(tx *cluster.Tx) { tx.SetPod(remote) }},
		{"remote-pod-relabelled", func(tx *cluster.Tx) { tx.SetPod(&relabelled) }},
		{"remote-pod-relabelled-for-nobody", func(tx *cluster.Tx) { tx.SetPod(&other) }},
		{"remote-pod-relabelled-back", func(tx *cluster.Tx) { tx.SetPod(remote) }},
		{"remote-pod-goes", func(tx *cluster.Tx) { tx.DeletePod(remote.Key) }},
		{"local-pod-comes", func(tx *cluster.Tx) { tx.SetPod(local) }},
		{"local-pod-goes", func(tx *cluster.Tx) { tx.DeletePod(local.Key) }},
		{"policy-comes", func(tx *cluster.Tx) { tx.SetPolicy(extra) }},
		{"policy-goes", func(tx *cluster.Tx) { tx.DeletePolicy(extra.Key) }},
		{"namespace-of-80-pods-relabelled", func(tx *cluster.Tx) { tx.SetNamespace(plain) }},
	}
}
