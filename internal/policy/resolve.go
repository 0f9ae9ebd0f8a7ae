// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// Resolve computes the model of a node from the whole cluster, in the plainest
// way. It is the reference for Index: for equal clusters both return equal
// models.
func Resolve(snap *cluster.Snapshot, node string) *Model {
	var local []*cluster.Pod
	claimants := map[netip.Addr][]*cluster.Pod{}
	for _, p := range snap.Pods {
		if p.Networked() {
			for _, a := range p.IPs {
				claimants[a] = append(claimants[a], p)
			}
		}
		if p.Networked() && p.Node == node {
			local = append(local, p)
		}
	}
	layout := newLayout(local, func(namespace string) []*cluster.Policy {
		return slices.DeleteFunc(slices.Clone(snap.Policies), func(p *cluster.Policy) bool { return p.Key.Namespace != namespace })
	})
	sets := map[SetKey]Members{}
	for key, spec := range layout.Specs {
		sets[key] = membersOf(spec, snap, claimants, node)
	}
	return &Model{Layout: layout, Sets: sets}
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

// newLayout judges every local pod by every policy of its namespace.
func newLayout(local []*cluster.Pod, policiesOf func(namespace string) []*cluster.Policy) *Layout {
	l := &Layout{Specs: map[SetKey]*SetSpec{}}
	resolved := map[cluster.Key]*Resolved{}
	byNamespace := map[string][]*cluster.Policy{}
	for _, pod := range local {
		ns := pod.Key.Namespace
		policies, known := byNamespace[ns]
		if !known {
			policies = slices.SortedFunc(slices.Values(policiesOf(ns)), func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
			byNamespace[ns] = policies
		}
		w := Workload{Pod: pod}
		for _, p := range policies {
			if !p.Subject.Matches(pod.Labels) {
				continue
			}
			if resolved[p.Key] == nil {
				resolved[p.Key] = l.resolve(p)
			}
			w.isolate(resolved[p.Key])
		}
		l.Workloads = append(l.Workloads, w)
	}
	slices.SortFunc(l.Workloads, func(a, b Workload) int {
		return cmp.Or(a.Pod.Key.Compare(b.Pod.Key), cmp.Compare(a.Pod.UID, b.Pod.UID))
	})
	return l
}

// isolate adds a policy that selects the pod.
func (w *Workload) isolate(r *Resolved) {
	if r.Policy.IsolatesIngress {
		w.Ingress = Isolation{true, append(w.Ingress.Policies, r)}
	}
	if r.Policy.IsolatesEgress {
		w.Egress = Isolation{true, append(w.Egress.Policies, r)}
	}
}

// resolve resolves a policy and notes the sets that it needs, so that equal
// sets of different policies are one.
func (l *Layout) resolve(p *cluster.Policy) *Resolved {
	r := resolvePolicy(p)
	for _, list := range [][]Clause{r.Ingress, r.Egress} {
		for i := range list {
			l.share(&list[i].Peer)
			l.share(&list[i].Dest)
		}
	}
	return r
}

func (l *Layout) share(spec **SetSpec) {
	if *spec == nil {
		return
	}
	key := (*spec).Key()
	if l.Specs[key] == nil {
		l.Specs[key] = *spec
	}
	*spec = l.Specs[key]
}
