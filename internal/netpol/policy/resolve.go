// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// Resolve computes the model of a node from the whole cluster, in the plainest
// way. It is the reference for Index: for equal clusters both return equal
// models.
func Resolve(snap *cluster.Snapshot, node string) *Model {
	local := map[string][]*cluster.Pod{}
	claimants := map[netip.Addr][]*cluster.Pod{}
	for _, p := range snap.Pods {
		if !p.Networked() {
			continue
		}
		for _, a := range p.IPs {
			claimants[a] = append(claimants[a], p)
		}
		if p.Node == node {
			local[p.Key.Namespace] = append(local[p.Key.Namespace], p)
		}
	}
	parts := map[string]*part{}
	for ns, pods := range local {
		policies := slices.DeleteFunc(slices.Clone(snap.Policies),
			func(p *cluster.Policy) bool { return p.Key.Namespace != ns })
		parts[ns] = newPart(pods, policies, resolvePolicy)
	}
	all := map[SetKey]Members{}
	for _, p := range parts {
		for key, spec := range p.specs {
			all[key] = membersOf(spec, snap, claimants, node)
		}
	}
	addresses := 0
	for _, p := range snap.Pods {
		if p.Networked() {
			addresses += len(p.IPs)
		}
	}
	size := func(k SetKey) int { return all[k].V4.Len() + all[k].V6.Len() }
	out := aboveBudget(parts, size, addresses)
	layout := join(parts, out)
	sets := map[SetKey]Members{}
	for key := range layout.Specs {
		sets[key] = all[key]
	}
	return &Model{Layout: layout, Sets: sets, Diagnostics: diagnostics(out, size)}
}

func membersOf(spec *SetSpec, snap *cluster.Snapshot, claimants map[netip.Addr][]*cluster.Pod, node string) Members {
	var m Members
	for _, p := range snap.Pods {
		if spec.Local && p.Node != node {
			continue
		}
		i := slices.IndexFunc(snap.Namespaces, func(n *cluster.Namespace) bool { return n.Name == p.Key.Namespace })
		var namespace *cluster.Namespace
		if i >= 0 {
			namespace = snap.Namespaces[i]
		}
		for _, a := range p.IPs {
			if !slices.Contains(owners(claimants[a]), p) {
				continue
			}
			for _, e := range spec.elements(nil, p, namespace, a) {
				m.add(e)
			}
		}
	}
	return m
}
