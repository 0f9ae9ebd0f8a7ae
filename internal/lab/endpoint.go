// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/probe"
)

// Kind is what an endpoint is.
type Kind uint8

// The kinds of endpoints.
const (
	NodeEndpoint Kind = iota + 1
	PodEndpoint
	HostEndpoint
)

// Endpoint is something with addresses and a namespace. Its fields do not
// change while it exists.
type Endpoint struct {
	Kind Kind
	// Name is namespace/name for a pod, else the plain name.
	Name string
	// Node is the node of a pod, and the node itself for a node.
	Node string
	// Addrs are the addresses that were asked for.
	Addrs []netip.Addr
	// LinkLocal is the IPv6 link-local address of the link eth0.
	LinkLocal netip.Addr
	// HostDevice is the name of the link in the node that leads to a pod.
	HostDevice string
	NS         *netns.NS
}

// Probe returns the endpoint as package probe wants it. Pods and hosts are
// watched at their link, nodes behind their input hook.
func (e *Endpoint) Probe() probe.Endpoint {
	p := probe.Endpoint{Name: e.Name, NS: e.NS, Addrs: e.Addrs}
	if e.Kind != NodeEndpoint {
		p.Device = device
	}
	return p
}

// device is the name of the link in every pod and host, and of the uplink in
// every node.
const device = "eth0"

// member is an endpoint with the handles by which the lab changes it.
type member struct {
	*Endpoint
	*space
	link netlink.Link // eth0
}

type node struct {
	member
	index int
	// proxied are the addresses that the node answers for on its bridge.
	proxied map[netip.Addr]bool
	bridge  netlink.Link // nil before the first pod, or without a bridge
	subnets []netip.Prefix
	table   *serviceTable
}

type host struct{ member }

type pod struct {
	member
	node  *node
	cable *cable // nil if the kernel carries the pod's frames
}

func (p *pod) close() error { return errors.Join(p.cable.close(), p.member.close()) }

// ManyConnections are settings that let a pod open and close thousands of connections.
func ManyConnections() []netns.Sysctl {
	return []netns.Sysctl{
		{Path: "ipv4/ip_local_port_range", Value: "1024 65000"},
		{Path: "ipv4/tcp_max_tw_buckets", Value: "200000"},
		{Path: "core/somaxconn", Value: "4096"},
	}
}
