// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"
)

// Service is a Service that a proxy serves, reduced to what can change where a packet goes. A
// Service without a cluster address, an ExternalName and one of another proxy have no value. It is
// immutable once published.
type Service struct {
	Key Key
	// Created is the creation time in seconds since 1970, 0 if it is not known. Of two Services that
	// claim the same address and port the older has it.
	Created int64
	// ClusterIPs are the cluster addresses, at most one of each family. The Service exists in these
	// families only.
	ClusterIPs []netip.Addr
	// Ports have different protocols or numbers.
	Ports []ServicePort
	// External is how the Service is reached from outside; nil if only by its cluster addresses.
	External *External
	// Affinity is how many seconds after its last connection a client comes back to the same
	// endpoint; 0 for no affinity.
	Affinity uint32
	// InternalLocal sends connections to the cluster addresses to endpoints of the client's node only.
	InternalLocal bool
	// Scheduler is the scheduler of IPVS that is asked for, one of kube-router's: rr, lc, dh, sh, mh; empty if
	// none is. SchedulerOptions are its options, as bits: flag-1, flag-2 and flag-3 of kube-router.
	Scheduler        string
	SchedulerOptions uint8
}

// ServicePort is a port of a Service.
type ServicePort struct {
	// Name and Protocol are those of the ports of EndpointSlices that belong to this one.
	Name     string
	Protocol Protocol
	Port     uint16
	// NodePort is the port at the addresses of nodes, 0 for none.
	NodePort uint16
}

// External is how a Service is reached from outside of the cluster.
type External struct {
	// IPs are spec.externalIPs.
	IPs []netip.Addr
	// LoadBalancerIPs are the addresses of the load balancer that the proxy serves: those without
	// ipMode Proxy.
	LoadBalancerIPs []netip.Addr
	// Restricted says that only clients in SourceRanges may use the load balancer's addresses. A
	// family without a range then admits nobody.
	Restricted   bool
	SourceRanges []netip.Prefix // masked
	// Local sends connections from outside to endpoints of the node that they reached only.
	Local bool
	// HealthPort is spec.healthCheckNodePort, 0 for none.
	HealthPort uint16
}

// Equal reports whether two Services are the same for every decision.
func (s *Service) Equal(o *Service) bool {
	if s == nil || o == nil || s == o {
		return s == o
	}
	return s.Key == o.Key && s.Created == o.Created && s.Affinity == o.Affinity && s.Scheduler == o.Scheduler &&
		s.SchedulerOptions == o.SchedulerOptions &&
		s.InternalLocal == o.InternalLocal && slices.Equal(s.ClusterIPs, o.ClusterIPs) &&
		slices.Equal(s.Ports, o.Ports) && s.External.equal(o.External)
}

func (e *External) equal(o *External) bool {
	if e == nil || o == nil || e == o {
		return e == o
	}
	return slices.Equal(e.IPs, o.IPs) && slices.Equal(e.LoadBalancerIPs, o.LoadBalancerIPs) &&
		e.Restricted == o.Restricted && slices.Equal(e.SourceRanges, o.SourceRanges) &&
		e.Local == o.Local && e.HealthPort == o.HealthPort
}

// EndpointSlice is some of the endpoints of a Service, all of one family. It is immutable once
// published.
type EndpointSlice struct {
	Key Key
	// Service is the Service of the same namespace that the endpoints belong to.
	Service string
	// Ports are the ports of every endpoint.
	Ports     []EndpointPort
	Endpoints []Endpoint
	// Triggered is when the change happened that made the controller write the slice, in nanoseconds
	// since 1970; 0 if it does not say. Slices that differ in it only are equal.
	Triggered int64
}

// Parent returns the key of the slice's Service.
func (s *EndpointSlice) Parent() Key { return Key{Namespace: s.Key.Namespace, Name: s.Service} }

// EndpointPort is where the endpoints of a slice serve a port of their Service: the one with this
// name and protocol.
type EndpointPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is an address that serves. There are many: what several have in common is shared.
type Endpoint struct {
	Addr netip.Addr
	*Placement
}

// Placement is where an endpoint is and in which state. Equal values may be shared; never nil in an
// Endpoint.
type Placement struct {
	// Node is the node of the endpoint; empty if it has none.
	Node string
	// NodeHints and ZoneHints name the nodes and the zones whose clients the endpoint is for, sorted;
	// none means no hint.
	NodeHints, ZoneHints []string
	// Ready endpoints take connections. Those that are Serving and Terminating take them where no
	// endpoint is ready.
	Ready, Serving, Terminating bool
}

// Equal reports whether two slices are the same for every decision.
func (s *EndpointSlice) Equal(o *EndpointSlice) bool {
	if s == nil || o == nil || s == o {
		return s == o
	}
	return s.Key == o.Key && s.Service == o.Service && slices.Equal(s.Ports, o.Ports) &&
		slices.EqualFunc(s.Endpoints, o.Endpoints, func(a, b Endpoint) bool {
			return a.Addr == b.Addr && a.Placement.equal(b.Placement)
		})
}

func (p *Placement) equal(o *Placement) bool {
	return p == o || p.Node == o.Node && p.Ready == o.Ready && p.Serving == o.Serving &&
		p.Terminating == o.Terminating && slices.Equal(p.NodeHints, o.NodeHints) &&
		slices.Equal(p.ZoneHints, o.ZoneHints)
}

// ServiceSnapshot is everything that decides where connections to Services go, in any order.
type ServiceSnapshot struct {
	Services []*Service
	Slices   []*EndpointSlice
	Nodes    []*Node
	// Pods are needed for their addresses only: no Service may take them.
	Pods []*Pod
}

// ServiceDelta is what changed between two ServiceSnapshots. An object occurs once at most.
type ServiceDelta struct {
	// Revision counts the changes of what a service proxy needs; it is that after this delta.
	Revision uint64
	Services []Change[Service]
	Slices   []Change[EndpointSlice]
	Nodes    []Change[Node]
	// Pods are those whose addresses changed. Other changes of a pod are not in any delta, so their
	// values may be older than those of the Store.
	Pods []Change[Pod]
	// Source identifies the content that the source delivered last; see Tx.SetSource.
	Source string
	// Since is the time of the first of these changes by the store's clock; 0 without a clock or a
	// change.
	Since int64
	// Triggered are the times of what made the controller change slices, in nanoseconds since 1970:
	// one for each change that has one, MaxTriggers at most. The first delta has none.
	Triggered []int64
	// Diagnostics are all current ones about Services and EndpointSlices, sorted; not a difference.
	Diagnostics []Diagnostic
}
