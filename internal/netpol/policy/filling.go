// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// filling collects the members of new sets in one walk over the pods. Pods of one workload share
// their labels, so each selector is evaluated once for all of them.
type filling struct {
	index  *Index
	find   byPod[*set]
	lists  map[*set][]inet.Element
	shared map[netip.Addr]bool // addresses that several pods have
	total  int                 // elements of all lists
	limit  int                 // above it members are only counted
}

// fill counts the members of sets, and keeps them if there are at most limit in all.
func (x *Index) fill(sets []*set, limit int) {
	if len(sets) == 0 {
		return
	}
	f := filling{index: x, limit: limit, lists: make(map[*set][]inet.Element, len(sets)), shared: map[netip.Addr]bool{}}
	for _, s := range sets {
		s.count, s.filled = 0, nil
		s.eachSelection(f.find.add)
	}
	for ns, pods := range x.pods {
		if f.find.elsewhere() || f.find.own[ns] != nil {
			f.namespace(x.namespaces[ns], pods)
		}
	}
	for i, list := range x.contributions(slices.SortedFunc(maps.Keys(f.shared), netip.Addr.Compare), sets) {
		f.add(sets[i], list)
	}
	for _, s := range sets {
		s.filled = nil
		x.fresh[s.key] = s.count
		if s.kept = f.total <= limit; s.kept {
			s.members = membersFrom(f.lists[s])
		}
	}
}

func (f *filling) namespace(namespace *cluster.Namespace, pods []*cluster.Pod) {
	type labels struct {
		first *cluster.Label
		n     int
	}
	alike := map[labels][]*cluster.Pod{}
	for _, p := range pods {
		if !p.Networked() {
			continue
		}
		key := labels{n: len(p.Labels)}
		if key.n > 0 {
			key.first = &p.Labels[0]
		}
		alike[key] = append(alike[key], p)
	}
	for _, pods := range alike {
		f.pods(namespace, pods)
	}
}

// pods adds pods of one namespace with the same labels. They may differ in their ports and in their
// node. Above the limit members are only counted, for all pods at once if the number is the same
// for each.
func (f *filling) pods(namespace *cluster.Namespace, pods []*cluster.Pod) {
	first, addresses := pods[0], f.addresses(pods)
	f.find.candidates(first, namespace, func(s *set) bool {
		if s.filled == first {
			return true // already found by another of its selectors
		}
		s.filled = first
		if !s.spec.selects(first, namespace) {
			return true
		}
		if f.total > f.limit && !s.spec.Local && len(s.spec.PortNames) == 0 {
			s.count += addresses
			f.total += addresses
			return true
		}
		for _, p := range pods {
			f.pod(s, p)
		}
		return true
	})
}

// addresses counts the addresses of the pods that no other pod has, and records the others.
func (f *filling) addresses(pods []*cluster.Pod) (n int) {
	for _, p := range pods {
		for _, a := range p.IPs {
			if len(f.index.addrs.of(a)) > 1 {
				f.shared[a] = true
			} else {
				n++
			}
		}
	}
	return n
}

func (f *filling) pod(s *set, p *cluster.Pod) {
	if s.spec.Local && p.Node != f.index.node {
		return
	}
	var some [4]inet.Element
	for _, a := range p.IPs {
		if f.shared[a] {
			continue
		}
		f.add(s, s.spec.of(some[:0], p, a))
	}
}

func (f *filling) add(s *set, list []inet.Element) {
	s.count += len(list)
	if f.total += len(list); f.total <= f.limit {
		f.lists[s] = append(f.lists[s], list...)
	}
}
