// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// Resolve computes the model of a node from everything, and what is wrong with the Services, sorted.
// Index computes the same step by step.
func Resolve(snap *cluster.ServiceSnapshot, settings Settings) (*Model, []cluster.Diagnostic) {
	return resolveWithin(MaxNamespaceWeight, snap, settings)
}

// resolveWithin is Resolve with a budget of each namespace.
func resolveWithin(budget int, snap *cluster.ServiceSnapshot, settings Settings) (*Model, []cluster.Diagnostic) {
	r := resolver{env: newEnvironment(settings, ownNode(snap, settings.Node)), holders: holders(snap)}
	bySlice := map[cluster.Key][]*cluster.EndpointSlice{}
	for _, s := range snap.Slices {
		bySlice[s.Parent()] = append(bySlice[s.Parent()], s)
	}
	left := leftOutOf(budget, snap.Services, bySlice)
	winner := map[program.Front]cluster.Key{}
	for _, s := range slices.SortedFunc(slices.Values(snap.Services), older) {
		in := &input{env: r.env, service: s, slices: bySlice[s.Key], left: left[s]}
		if in.left {
			r.found = append(r.found, leftOut(s))
			r.add(in.fragment())
			continue
		}
		claims, found := r.env.claims(s, r.held)
		r.found = append(r.found, found...)
		var gone []cluster.Diagnostic
		for _, c := range claims {
			if first, taken := winner[c.front]; taken {
				gone = append(gone, lost(s, c, first))
				continue
			}
			winner[c.front] = s.Key
			in.won = append(in.won, c)
		}
		r.found = append(r.found, few(gone, len(gone))...)
		r.add(in.fragment())
	}
	slices.SortFunc(r.found, compareFindings)
	slices.SortFunc(r.health, compareHealth)
	return &Model{IPv4: r.program(inet.IPv4), IPv6: r.program(inet.IPv6), Health: r.health}, r.found
}

// leftOutOf returns the Services that the budgets of their namespaces have no room for.
func leftOutOf(
	budget int, all []*cluster.Service, slicesOf map[cluster.Key][]*cluster.EndpointSlice,
) map[*cluster.Service]bool {
	spaces := map[string][]*cluster.Service{}
	for _, s := range all {
		spaces[s.Key.Namespace] = append(spaces[s.Key.Namespace], s)
	}
	itself := func(s *cluster.Service) *cluster.Service { return s }
	weight := func(s *cluster.Service) int { return weigh(s, slicesOf[s.Key]) }
	left := map[*cluster.Service]bool{}
	for _, list := range spaces {
		for _, s := range tooMuch(list, budget, itself, weight) {
			left[s] = true
		}
	}
	return left
}

func ownNode(snap *cluster.ServiceSnapshot, name string) *cluster.Node {
	for _, n := range snap.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// holders returns who has which address.
func holders(snap *cluster.ServiceSnapshot) map[netip.Addr]string {
	m := map[netip.Addr]string{}
	for _, p := range snap.Pods {
		if p.Networked() {
			for _, a := range p.IPs {
				m[a] = heldByPod
			}
		}
	}
	for _, s := range snap.Services {
		for _, a := range s.ClusterIPs {
			m[a] = heldByService
		}
	}
	for _, n := range snap.Nodes {
		for _, a := range n.Addrs {
			m[a] = heldByOther
		}
	}
	return m
}

// resolver adds up the fragments of all Services.
type resolver struct {
	env     *environment
	holders map[netip.Addr]string
	parts   [len(inet.Families)]struct {
		routes           []program.Route
		slots            []program.Slot
		addresses, loops []inet.Element
		admissions       []program.Admission
	}
	health []Health
	found  []cluster.Diagnostic
}

func (r *resolver) held(a netip.Addr) string {
	if r.env.own(a) {
		return heldByNode
	}
	if slices.Contains(r.env.APIServer, a) {
		return heldByAPI
	}
	return r.holders[a]
}

func (r *resolver) add(f fragment) {
	for _, a := range f.fronts {
		part := &r.parts[index(a.family)]
		part.routes, part.slots = append(part.routes, a.route), append(part.slots, a.slots...)
	}
	for _, a := range f.addresses {
		part := &r.parts[index(inet.FamilyOf(a))]
		part.addresses = append(part.addresses, inet.Element{Addr: a})
	}
	for _, a := range f.loops {
		part := &r.parts[index(inet.FamilyOf(a))]
		part.loops = append(part.loops, inet.Element{Addr: a})
	}
	for _, a := range f.admissions {
		part := &r.parts[index(a.family)]
		part.admissions = append(part.admissions, a.Admission)
	}
	if f.health != nil {
		r.health = append(r.health, *f.health)
	}
	r.found = append(r.found, f.found...)
}

func (r *resolver) program(f inet.Family) *program.Program {
	p, part := r.env.skeleton(f), &r.parts[index(f)]
	p.Routes, p.Slots = immutable.Of(part.routes...), immutable.Of(part.slots...)
	p.ClusterAddresses, p.Loops = immutable.Of(part.addresses...), immutable.Of(part.loops...)
	slices.SortFunc(part.admissions, compareAdmissions)
	p.Admissions = slices.CompactFunc(part.admissions, func(a, b program.Admission) bool { return a.Name == b.Name })
	return &p
}

func compareAdmissions(a, b program.Admission) int { return cmp.Compare(a.Name, b.Name) }

func compareHealth(a, b Health) int {
	return cmp.Or(cmp.Compare(a.Port, b.Port), a.Service.Compare(b.Service))
}
