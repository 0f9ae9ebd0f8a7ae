// SPDX-License-Identifier: Apache-2.0

// Package service says what Services mean on one node: from Services, EndpointSlices, nodes and the
// addresses of pods to the programs of both families. Resolve computes them from scratch; Index keeps
// them up to date, and a change costs what the changed Services have.
//
// It is pure. Both results are functions of the cluster and of the settings, never of the order of
// events: slots are numbered by the set of the endpoints. docs/design/services.md says what each field
// means, and where that is written.
package service

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// Settings are what a node must know beside the objects of the cluster.
type Settings struct {
	// Node is the name of the node.
	Node string
	// OwnAddresses are all addresses of the node. No Service is served at one of them, but for its
	// node ports.
	OwnAddresses []netip.Addr
	// NodePortAddresses are those of them that take node ports. Loopback addresses never do.
	NodePortAddresses []netip.Addr
	// APIServer are the addresses of the API server. No Service takes them from outside: the node could not
	// hear any more that it should not.
	APIServer []netip.Addr
	// ServiceRanges are the ranges of cluster addresses. In a range that holds an address of the node
	// nothing is dropped, and what goes to the API server is dropped in none.
	ServiceRanges []netip.Prefix
	// ClusterPods are the ranges of all pods. Without one of a family, connections to cluster
	// addresses of that family are not masqueraded: pods could not be told from others.
	ClusterPods []netip.Prefix
	// NodePods are the ranges of the pods of this node.
	NodePods []netip.Prefix
	// IPVS chooses endpoints, as Services ask for; without it what they ask for is a finding.
	IPVS bool
	// MasqueradeAll masquerades every connection to a cluster address.
	MasqueradeAll bool
	// Strict serves external addresses in ExternalRanges only, and addresses of load balancers in
	// LoadBalancerRanges only.
	Strict                             bool
	ExternalRanges, LoadBalancerRanges []netip.Prefix
}

// Model is what the Services of a cluster mean on a node.
type Model struct {
	IPv4, IPv6 *program.Program
	// Health are the health-check node ports, sorted by port; of two with one port the first has it.
	Health []Health
}

// Program returns the program of a family.
func (m *Model) Program(f inet.Family) *program.Program {
	if f == inet.IPv6 {
		return m.IPv6
	}
	return m.IPv4
}

// Health is a port at which the node tells load balancers whether it has endpoints of a Service.
type Health struct {
	Port    uint16
	Service cluster.Key
	// Ready is how many ready endpoints of the Service are on this node: addresses, of the family
	// that has more.
	Ready int
}

// environment is what a node and its Node object say, in the form in which Services need it. It is
// immutable.
type environment struct {
	Settings
	zone string
	// primary are the first addresses of the Node object by family: IPv4, IPv6.
	primary [2]netip.Addr
}

func newEnvironment(s Settings, own *cluster.Node) *environment {
	e := &environment{Settings: s}
	if own == nil {
		return e
	}
	e.zone = own.Zone
	for i, f := range inet.Families {
		if k := slices.IndexFunc(own.Addrs, func(a netip.Addr) bool { return inet.FamilyOf(a) == f }); k >= 0 {
			e.primary[i] = own.Addrs[k]
		}
	}
	return e
}

// own reports whether the address is one of the node's.
func (e *environment) own(a netip.Addr) bool {
	return slices.Contains(e.OwnAddresses, a) || slices.Contains(e.NodePortAddresses, a)
}

// skeleton returns the program of a family without any Service.
func (e *environment) skeleton(f inet.Family) program.Program {
	p := program.Program{
		Family:      f,
		ClusterPods: ofFamily(e.ClusterPods, f),
		NodePods:    ofFamily(e.NodePods, f),
	}
	for _, r := range ofFamily(e.ServiceRanges, f) {
		if !slices.ContainsFunc(e.OwnAddresses, r.Contains) && !slices.ContainsFunc(e.NodePortAddresses, r.Contains) {
			p.ServiceRanges = append(p.ServiceRanges, without(r, e.APIServer)...)
		}
	}
	for _, a := range e.NodePortAddresses {
		if inet.FamilyOf(a) == f && !a.IsLoopback() && !slices.Contains(p.NodeAddresses, a) {
			p.NodeAddresses = append(p.NodeAddresses, a)
		}
	}
	return p
}

// without returns a range without some addresses, as ranges.
func without(r netip.Prefix, addrs []netip.Addr) []netip.Prefix {
	switch {
	case !slices.ContainsFunc(addrs, r.Contains):
		return []netip.Prefix{r}
	case r.IsSingleIP():
		return nil
	}
	low := netip.PrefixFrom(r.Addr(), r.Bits()+1)
	high := netip.PrefixFrom(inet.AddrRange(low).Last.Addr.Next(), low.Bits())
	return append(without(low, addrs), without(high, addrs)...)
}

// ofFamily returns the ranges of a family, masked.
func ofFamily(list []netip.Prefix, f inet.Family) (some []netip.Prefix) {
	for _, p := range list {
		if inet.FamilyOf(p.Addr()) == f {
			some = append(some, p.Masked())
		}
	}
	return some
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
