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

	corev1 "k8s.io/api/core/v1"

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
	// NodeAddresses is true where nodes have the addresses of their Node objects, or else
	// those that pods on them report. The others, and all if it is false, have addresses of
	// World.Network.
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
	// Notes say which addresses of nodes are made up.
	Notes []string
	// Found is about objects that are not used as written, beside what the reader of
	// the manifests reported.
	Found []cluster.Diagnostic
}

// Build completes the input. loaded is the same manifests as they were read.
func Build(in *Input, loaded *manifest.Result, o Options) (*World, error) {
	w := &World{Input: in, Used: in.used(loaded, o)}
	chosen := in.assign(w.Used)
	w.Network = FreeNetwork(w.Used.List())
	if err := w.placeNodes(loaded, o.NodeAddresses); err != nil {
		return nil, err
	}
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

// placeNodes gives nodes their addresses. The error is that there are too many without.
func (w *World) placeNodes(loaded *manifest.Result, own bool) error {
	var madeUp []string
	for _, name := range w.Input.Nodes {
		n := &cluster.Node{Name: name}
		if own {
			n.Addrs = w.Input.known(name, loaded.Nodes)
		}
		if len(n.Addrs) == 0 {
			n.Addrs = w.Network.Node(len(madeUp))
			madeUp = append(madeUp, name)
		}
		w.Nodes = append(w.Nodes, n)
	}
	switch {
	case own && len(madeUp) > MaxNodes:
		return fmt.Errorf("%d nodes have no address in the manifests, more than %d: add the Node objects",
			len(madeUp), MaxNodes)
	case own && len(madeUp) > 0 && len(blocks(loaded.Policies)) > 0: // else no policy speaks about them
		more := ""
		if len(madeUp) > maxNamed {
			more = fmt.Sprintf(" and %d more", len(madeUp)-maxNamed)
		}
		w.Notes = append(w.Notes,
			fmt.Sprintf("made up the addresses of the nodes %s%s: add Node objects where policies name them",
				strings.Join(madeUp[:min(maxNamed, len(madeUp))], ", "), more))
	}
	return nil
}

// maxNamed is how many nodes a note names.
const maxNamed = 4

// known returns the addresses of a node by its object, or by the status of its pods.
func (in *Input) known(name string, objects []*corev1.Node) []netip.Addr {
	for _, object := range objects {
		if c := convert.Node(object); c.Name == name && len(c.Addrs) > 0 {
			return c.Addrs
		}
	}
	for _, p := range in.Pods {
		if p.Spec.NodeName != name {
			continue
		}
		found := Addresses{}
		found.addText(p.Status.HostIP)
		for _, h := range p.Status.HostIPs {
			found.addText(h.IP)
		}
		if p.Spec.HostNetwork {
			found.addText(addresses(p)...)
		}
		if len(found) > 0 {
			return found.List()
		}
	}
	return nil
}

// Settle returns the objects as an agent sees them that knows these nodes: pods have
// only the addresses that can be theirs, and policies above the budget of their
// namespace allow nothing. The findings are about both.
func Settle(m *manifest.Result, nodes []*cluster.Node, allow cluster.Allowance) (*cluster.Snapshot,
	[]cluster.Diagnostic) {
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

// Existing returns the snapshot without the namespaces that have neither an object, by name
// in objects, nor a pod: the reader of manifests makes one of each that is mentioned.
func Existing(snap *cluster.Snapshot, objects map[string]bool) *cluster.Snapshot {
	real := *snap
	real.Namespaces = slices.DeleteFunc(slices.Clone(snap.Namespaces), func(n *cluster.Namespace) bool {
		inside := func(p *cluster.Pod) bool { return p.Key.Namespace == n.Name }
		return !objects[n.Name] && !slices.ContainsFunc(snap.Pods, inside)
	})
	return &real
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
