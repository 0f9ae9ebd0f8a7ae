// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/service"
)

// scene is what questions are about: the objects of a cluster at one moment.
type scene struct {
	snap    *cluster.Snapshot
	nodes   []*cluster.Node
	answers *explain.Cluster
	fronts  []complete.Front
	// served is what a service proxy needs.
	served *cluster.ServiceSnapshot
	// called is the same, where Services without an address have one that was made up.
	called *cluster.ServiceSnapshot
	// serving are the settings of a node's proxy, and whether podwall's agent there serves Services; nil for the
	// defaults.
	serving func(*cluster.Node) (set service.Settings, runs bool)
	// others has Services without an address that leads to pods, and why.
	others map[string]string
	// addresses are those of Services.
	addresses map[netip.Addr]string
	// family is the only one that is asked about, 0 for both.
	family inet.Family
	// workload has the name of the object that a pod was made of, without namespace.
	workload map[cluster.Key]string
	// declared are the ports that containers declare, with a name or without.
	declared map[cluster.Key][]cluster.NamedPort
	// named are the namespaces that exist; nil if all of the snapshot do.
	named map[string]bool
	// namespace is that of names without one.
	namespace string
	// notes are what to know beside; found are findings about objects.
	notes []string
	found []cluster.Diagnostic
	// asWritten is false if an object was not read, or is not enforced as written.
	asWritten bool
	// allowed is what the agents let users do.
	allowed cluster.Allowance
	// images are those of the agents, by node.
	images map[string]string
}

func newScene(snap *cluster.Snapshot, nodes []*cluster.Node) *scene {
	return &scene{snap: snap, nodes: nodes, answers: explain.New(snap), workload: map[cluster.Key]string{},
		declared: map[cluster.Key][]cluster.NamedPort{}}
}

// note adds what to know; empty for nothing.
func (sc *scene) note(text string) {
	if text != "" {
		sc.notes = append(sc.notes, text)
	}
}

// status is the error that ends a command with the exit status of its answer.
func (sc *scene) status(no bool) error {
	switch {
	case no:
		return exit{statusNo}
	case !sc.asWritten:
		return exit{statusNotWritten}
	}
	return nil
}

// made returns the pods of a workload that have an address.
func (sc *scene) made(namespace, workload string) (list []*cluster.Pod) {
	for _, p := range sc.snap.Pods {
		if p.Key.Namespace == namespace && workload != "" && sc.workload[p.Key] == workload && !p.Finished &&
			len(p.IPs) > 0 {
			list = append(list, p)
		}
	}
	return list
}

func (sc *scene) node(name string) *cluster.Node {
	i := slices.IndexFunc(sc.nodes, func(n *cluster.Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return sc.nodes[i]
}

// nodeAt returns the node that has the address, or nil.
func (sc *scene) nodeAt(a netip.Addr) *cluster.Node {
	i := slices.IndexFunc(sc.nodes, func(n *cluster.Node) bool { return slices.Contains(n.Addrs, a) })
	if i < 0 {
		return nil
	}
	return sc.nodes[i]
}
