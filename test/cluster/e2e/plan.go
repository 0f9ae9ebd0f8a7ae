// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"strings"

	"github.com/podwall/podwall/test/cluster"
)

// plan is a combination: a kind of cluster, and what is tried on it.
type plan struct {
	name    string
	options cluster.Options
	gate    bool   // podwall is installed with its start gate
	specs   string // regular expression over the names of upstream's specs
	count   int    // of these specs
	long    bool   // all scenarios, not only the short ones
	also    string // a scenario beside the short ones
	skip    string // regular expression of specs that are left out, beside those of every plan
	bare    bool   // no scenarios
}

const allSpecs = "Netpol"

// servicesSpecs are upstream's specs of Services, and notHere those of them that need what no cluster on one
// machine has: a cloud's load balancers, a way out, kernel modules for SCTP, a control plane that can be restarted
// by ssh.
const (
	servicesSpecs = "Services |Conntrack |EndpointSlice|Endpoints |EndpointsController|" +
		"IPv6DualStack|Granular Checks|Connectivity Pod Lifecycle|NoSNAT|HostPort|Service CIDRs|ServiceCIDR|" +
		"Service endpoints latency"
	notHere = `Feature:LoadBalancer|SCTPConnectivity|\[Disruptive\]|Feature:Networking-`
)

// plans are all combinations. Every spec runs on one cluster of either wiring;
// the others get a choice that has one of each kind: direction, selectors, ports
// by number and by name, address ranges, updates and deletion.
func plans() []plan {
	two := func(w cluster.Wiring, p cluster.Proxy) cluster.Options {
		return cluster.Options{Nodes: 2, Wiring: w, Proxy: p}
	}
	dual := func(w cluster.Wiring, p cluster.Proxy) cluster.Options {
		o := two(w, p)
		o.DualStack = true
		return o
	}
	return []plan{
		{name: "ptp nftables", options: two(cluster.PTP, cluster.Nftables), specs: allSpecs, count: 47, long: true},
		{name: "bridge iptables gate", options: two(cluster.Bridge, cluster.Iptables), gate: true, specs: allSpecs,
			count: 47, long: true},
		{name: "ptp iptables gate", options: two(cluster.PTP, cluster.Iptables), gate: true, specs: chosen(),
			count: 12, also: "start times"},
		{name: "bridge nftables", options: two(cluster.Bridge, cluster.Nftables), specs: chosen(), count: 12},
		{name: "dual-stack ptp nftables gate", options: dual(cluster.PTP, cluster.Nftables), gate: true,
			specs: chosen(), count: 12},
		{name: "dual-stack ptp own services", options: dual(cluster.PTP, cluster.NoProxy), specs: chosen(),
			count: 12},
		{name: "bridge own services", options: two(cluster.Bridge, cluster.NoProxy), specs: chosen(), count: 12},
		{name: "few addresses", options: cluster.Options{PodAddresses: 13}},
		{name: "few addresses bridge gate", options: cluster.Options{PodAddresses: 13, Wiring: cluster.Bridge},
			gate: true},
		{name: "dual-stack bridge iptables", options: dual(cluster.Bridge, cluster.Iptables), specs: chosen(),
			count: 12},
		specsOfServices("dual-stack ptp own services, specs of services", dual(cluster.PTP, cluster.NoProxy)),
		specsOfServices("dual-stack ptp nftables, specs of services", dual(cluster.PTP, cluster.Nftables)),
		specsOfZones("three zones, own services", cluster.NoProxy),
		specsOfZones("three zones, nftables", cluster.Nftables),
	}
}

// specsOfServices is a combination that has no other purpose.
func specsOfServices(name string, o cluster.Options) plan {
	o.Tools, o.Zones = true, o.Nodes
	return plan{name: name, options: o, specs: servicesSpecs, count: 120, skip: notHere, bare: true}
}

// specsOfZones is a combination for upstream's specs of traffic distribution. All want three zones, and some of
// them two nodes in each.
func specsOfZones(name string, p cluster.Proxy) plan {
	o := cluster.Options{Nodes: 6, Zones: 3, Proxy: p, Tools: true}
	return plan{name: name, options: o, specs: "Traffic Distribution", count: 6, bare: true}
}

// chosen are twelve specs, one of each kind.
func chosen() string {
	return "Netpol NetworkPolicy between server and client (" + strings.Join([]string{
		"should support a 'default-deny-all' policy",
		"should enforce policy to allow traffic from pods within server namespace based on PodSelector",
		"should enforce policy based on PodSelector and NamespaceSelector",
		"should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
		"should enforce policy based on Ports",
		"should allow ingress access on one named port",
		"should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector " +
			"and NamespaceSelector",
		"should enforce except clause while egress access to server in CIDR block",
		"should enforce updated policy",
		"should allow ingress access from updated pod",
		"should stop enforcing policies after they are deleted",
	}, "|") + ")|using UDP should support a 'default-deny-ingress' policy"
}

// services reports whether podwall serves Services, in the place of kube-proxy.
func (p plan) services() bool { return p.options.Proxy == cluster.NoProxy }

// file is the name as that of a file.
func (p plan) file() string { return strings.ReplaceAll(strings.ReplaceAll(p.name, ",", ""), " ", "-") }

// tries reports whether a scenario is part of the plan.
func (p plan) tries(s scenario) bool {
	few := p.options.PodAddresses > 0
	if p.bare || s.services && !p.services() {
		return false
	}
	return s.few == few && (p.long || s.short || s.few || s.name == p.also) && (p.gate || !s.gate)
}
