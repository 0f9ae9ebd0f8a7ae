// SPDX-License-Identifier: Apache-2.0

// Package complete adds to manifests what a cluster adds to them: pods of workloads, the
// nodes and addresses of pods, addresses of Services, and the status that a kubelet
// writes. What it makes up is the same for the same input, and is reported.
//
// podwall-lab runs the result on this machine's kernel; kubectl-podwall answers
// questions about it. Objects are read by package source/manifest, with the agent's own
// reader; this package reads no file by itself and has no other effect.
package complete

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/source/manifest"
)

// Options say what is known beside the manifests.
type Options struct {
	// Hosts are addresses outside, which nothing else must get.
	Hosts []netip.Addr
	// Allow says which further addresses pods may have.
	Allow cluster.Allowance
	// NodeAddresses is true where nodes have the addresses of their Node objects. The
	// others, and all if it is false, have addresses of World.Network.
	NodeAddresses bool
}

// World is a completed cluster.
type World struct {
	Input *Input
	// Bare and Full are the completed manifests, without and with their policies.
	Bare, Full []byte
	// Manifests is Full as it was read.
	Manifests *manifest.Result
	// Nodes are in the order of Input.Nodes.
	Nodes   []*cluster.Node
	Network Network
	// Used has the addresses of all objects but the Services that have none yet.
	Used Addresses
	// Snapshot is what an agent sees.
	Snapshot *cluster.Snapshot
	// Found is about objects that are not used as written, beside what the reader of
	// the manifests reported.
	Found []cluster.Diagnostic
}

// Build completes the input. loaded is the same manifests as they were read.
func Build(in *Input, loaded *manifest.Result, o Options) (*World, error) {
	w := &World{Input: in, Used: in.used(loaded, o.Hosts)}
	chosen := in.assign(w.Used)
	w.Network = FreeNetwork(w.Used.List())
	w.Nodes = in.nodeList(w.Network, loaded, o.NodeAddresses)
	in.locateAll(chosen, w.Nodes)
	var err error
	if w.Bare, err = in.Render(false); err == nil {
		w.Full, err = in.Render(true)
	}
	if err != nil {
		return nil, err
	}
	if w.Manifests, err = manifest.Parse("cluster.yaml", w.Full); err != nil {
		return nil, fmt.Errorf("reading the completed manifests: %w", err)
	}
	var found []cluster.Diagnostic
	w.Snapshot, found = Settle(w.Manifests, w.Nodes, o.Allow)
	w.Found = slices.Concat(in.Found, found, newIn(w.Manifests.Diagnostics, loaded.Diagnostics))
	return w, nil
}

func (in *Input) nodeList(n Network, loaded *manifest.Result, own bool) []*cluster.Node {
	list := make([]*cluster.Node, len(in.Nodes))
	for i, name := range in.Nodes {
		list[i] = &cluster.Node{Name: name, Addrs: n.Node(i)}
		for _, object := range loaded.Nodes {
			if c := convert.Node(object); own && c.Name == name && len(c.Addrs) > 0 {
				list[i] = c
			}
		}
	}
	return list
}

// Settle returns the objects as an agent sees them that knows these nodes: pods have
// only the addresses that can be theirs, and policies above the budget of their
// namespace allow nothing. The findings are about both.
func Settle(m *manifest.Result, nodes []*cluster.Node, allow cluster.Allowance) (*cluster.Snapshot, []cluster.Diagnostic) {
	store := cluster.NewStore()
	store.Allow(allow)
	store.Update(func(tx *cluster.Tx) {
		tx.ReplaceNodes(nodes)
		tx.ReplaceNamespaces(m.Namespaces)
		tx.ReplacePods(m.Pods)
		tx.ReplacePolicies(m.Policies)
	})
	return store.Snapshot(), store.Take().Diagnostics
}

// newIn returns what is found in the completed manifests and was not found in those of
// the user: about pods that were made of workloads, say.
func newIn(now, before []cluster.Diagnostic) []cluster.Diagnostic {
	return slices.DeleteFunc(slices.Clone(now), func(d cluster.Diagnostic) bool {
		return IsUnused(d) || IsWorkload(d) || slices.ContainsFunc(before, func(known cluster.Diagnostic) bool {
			return known.Kind == d.Kind && known.Object == d.Object
		})
	})
}

// IsUnused reports whether a finding says only that an object is of a kind that is not
// used here. Such findings are summed up.
func IsUnused(d cluster.Diagnostic) bool {
	return d.Severity == cluster.Warning && d.Field == "" && strings.Contains(d.Message, " is not used")
}

// IsWorkload reports whether a finding says that a workload makes no pods, which is not
// so here.
func IsWorkload(d cluster.Diagnostic) bool {
	return d.Severity == cluster.Warning && d.Field == "" && slices.Contains(manifest.Workloads(), d.Kind)
}
