// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// kind is what a front is to its Service.
type kind uint8

// The kinds of fronts.
const (
	clusterAddress kind = iota
	loadBalancer        // also where it is an external address too: its source ranges count
	externalAddress
	nodePort
)

// claim is a front that a Service wants.
type claim struct {
	// front has the unspecified address of the family if it is a node port.
	front program.Front
	kind  kind
	port  int32 // index of the Service's port
}

func (c claim) family() inet.Family { return inet.FamilyOf(c.front.Addr) }

// programFront returns the front as it is in a program.
func (c claim) programFront() program.Front {
	f := c.front
	if c.kind == nodePort {
		f.Addr = netip.Addr{}
	}
	return f
}

// String returns the words for diagnostics.
func (c claim) String() string {
	if c.kind == nodePort {
		return fmt.Sprintf("node port %d/%s of IPv%d", c.front.Port, c.front.Protocol, c.family())
	}
	return c.front.String()
}

// field returns where in a Service the claim is.
func (c claim) field() string {
	switch c.kind {
	case clusterAddress:
		return "spec.clusterIPs"
	case loadBalancer:
		return "status.loadBalancer.ingress"
	case externalAddress:
		return "spec.externalIPs"
	}
	return fmt.Sprintf("spec.ports[%d].nodePort", c.port)
}

// holder says who has an address that is not free for external use; "" if it is free.
type holder func(netip.Addr) string

// The holders of addresses, in the order in which they are asked for.
const (
	heldByNode    = "an address of this node"
	heldByAPI     = "an address of the API server"
	heldByOther   = "an address of a Node"
	heldByService = "the cluster address of a Service"
	heldByPod     = "the address of a pod"
)

// claims returns the fronts that a Service may have, unless an older one has them, and what is wrong
// with others.
func (e *environment) claims(s *cluster.Service, held holder) ([]claim, []cluster.Diagnostic) {
	b := claimBuilder{env: e, service: s, held: held}
	for _, a := range s.ClusterIPs {
		if e.own(a) {
			b.say(cluster.Error, "spec.clusterIPs", fmt.Sprintf("%s is %s: the Service is not served there", a,
				heldByNode), "let the API server assign it, from a range that no node uses")
			continue
		}
		b.add(a, clusterAddress)
		if ranges := ofFamily(e.ServiceRanges, inet.FamilyOf(a)); len(ranges) > 0 && !contains(ranges, a) {
			b.say(cluster.Warning, "spec.clusterIPs", fmt.Sprintf("%s is outside of the configured range", a),
				"add its range to --service-cluster-ip-range")
		}
	}
	if x := s.External; x != nil {
		for _, a := range x.LoadBalancerIPs {
			b.outside(a, loadBalancer, e.LoadBalancerRanges)
		}
		for _, a := range x.IPs {
			k := externalAddress
			if slices.Contains(x.LoadBalancerIPs, a) {
				k = loadBalancer
			}
			b.outside(a, k, e.ExternalRanges)
		}
		b.nodePorts()
	}
	b.strict()
	return b.list, few(b.found, len(b.found))
}

// claimBuilder collects the claims of a Service.
type claimBuilder struct {
	env     *environment
	service *cluster.Service
	held    holder
	list    []claim
	found   []cluster.Diagnostic
	refused []string // addresses outside of the ranges that are allowed
	full    bool     // there is no room for more
}

func (b *claimBuilder) say(s cluster.Severity, field, message, cure string) {
	b.found = append(b.found, cluster.Diagnostic{Severity: s, Kind: kindService, Object: b.service.Key, Field: field,
		Message: message, Cure: cure})
}

// kindService is the Kind of diagnostics about Services.
const kindService = "Service"

// add claims the address for every port.
func (b *claimBuilder) add(a netip.Addr, k kind) {
	for i, p := range b.service.Ports {
		f := program.Front{Addr: a, Protocol: inet.Protocol(p.Protocol), Port: p.Port}
		b.put(claim{f, k, int32(i)})
	}
}

// outside claims an external address if it is free, and in the ranges that are allowed.
func (b *claimBuilder) outside(a netip.Addr, k kind, allowed []netip.Prefix) {
	claimed := func(c claim) bool { return c.front.Addr == a && c.kind != clusterAddress }
	if !b.has(inet.FamilyOf(a)) || slices.ContainsFunc(b.list, claimed) {
		return
	}
	if unfit(a) {
		b.say(cluster.Error, claim{kind: k}.field(), fmt.Sprintf("%s can be no host's address: the Service is not "+
			"served there", a), "use an address that is routed to the cluster's nodes")
		return
	}
	if who := b.held(a); who != "" {
		b.say(cluster.Error, claim{kind: k}.field(), fmt.Sprintf("%s is %s: the Service is not served there", a, who),
			"use an address that no host has")
		return
	}
	if b.env.Strict && !contains(allowed, a) {
		b.refused = append(b.refused, a.String())
		return
	}
	b.add(a, k)
}

// unfit reports whether an address can never be a Service's. Package convert leaves such addresses
// out already.
func unfit(a netip.Addr) bool {
	return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast()
}

// has reports whether the Service exists in the family.
func (b *claimBuilder) has(f inet.Family) bool {
	return slices.ContainsFunc(b.service.ClusterIPs, func(a netip.Addr) bool { return inet.FamilyOf(a) == f })
}

// nodePorts claims the node ports in the families of the Service.
func (b *claimBuilder) nodePorts() {
	for _, a := range b.service.ClusterIPs {
		for i, p := range b.service.Ports {
			if p.NodePort == 0 {
				continue
			}
			c := claim{program.Front{Addr: anyAddress(inet.FamilyOf(a)), Protocol: inet.Protocol(p.Protocol),
				Port: p.NodePort}, nodePort, int32(i)}
			if slices.ContainsFunc(b.list, func(o claim) bool { return o.front == c.front }) {
				b.say(cluster.Error, c.field(), fmt.Sprintf("%s is that of another port of the Service: it is not "+
					"served", c), "use another port")
				continue
			}
			b.put(c)
		}
	}
}

func anyAddress(f inet.Family) netip.Addr {
	if f == inet.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// strict says once which addresses are not allowed.
func (b *claimBuilder) strict() {
	if len(b.refused) == 0 {
		return
	}
	slices.Sort(b.refused)
	b.say(cluster.Error, "spec", fmt.Sprintf("the Service is not served at %s: not in the ranges that are allowed for "+
		"external addresses and load balancers", strings.Join(slices.Compact(b.refused), ", ")),
		"add the range to --service-external-ip-range or --loadbalancer-ip-range")
}

// older orders Services that claim one front: the first has it.
func older(a, b *cluster.Service) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), a.Key.Compare(b.Key))
}

// lost is the diagnostic of a claim that an older Service has.
func lost(s *cluster.Service, c claim, winner cluster.Key) cluster.Diagnostic {
	return cluster.Diagnostic{Severity: cluster.Error, Kind: kindService, Object: s.Key, Field: c.field(),
		Message: fmt.Sprintf("%s belongs to Service %s, which is older: this Service is not served there", c, winner),
		Cure:    "use another address or port, or delete one of the Services"}
}

// compareFindings orders diagnostics of Services.
func compareFindings(a, b cluster.Diagnostic) int {
	return cmp.Or(a.Object.Compare(b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message),
		cmp.Compare(a.Severity, b.Severity))
}
