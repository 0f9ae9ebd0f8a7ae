// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/service"
)

// Options are what the operator says about Services.
type Options struct {
	// Node is the name of the node.
	Node string
	// APIServer is the origin of the addresses that the store reserves for the API server.
	APIServer string
	// ServiceRanges are the ranges of cluster addresses.
	ServiceRanges []netip.Prefix
	// ClusterPods are the ranges of all pods. Without any, those of this node's pods are taken.
	ClusterPods []netip.Prefix
	// EveryAddress has node ports at all addresses of the node, and not only at the first ones of its Node
	// object.
	EveryAddress bool
	// MasqueradeAll masquerades every connection to a cluster address.
	MasqueradeAll bool
	// AnyExternal serves external addresses and those of load balancers without regard to the ranges.
	AnyExternal                        bool
	ExternalRanges, LoadBalancerRanges []netip.Prefix
}

// settings returns the settings of a node with that object, which is nil if there is none, and these
// addresses.
func (o Options) settings(own *cluster.Node, local, api []netip.Addr) service.Settings {
	// Every pod's interface brings a link-local address, at which no Service can be: a new one must not have
	// all Services computed again.
	lasting := slices.DeleteFunc(slices.Clone(local), netip.Addr.IsLinkLocalUnicast)
	s := service.Settings{
		Node: o.Node, OwnAddresses: lasting, APIServer: api, ServiceRanges: o.ServiceRanges, ClusterPods: o.ClusterPods,
		MasqueradeAll: o.MasqueradeAll, Strict: !o.AnyExternal, ExternalRanges: o.ExternalRanges,
		LoadBalancerRanges: o.LoadBalancerRanges,
	}
	if own != nil {
		s.NodePods = own.PodCIDRs
	}
	if len(s.ClusterPods) == 0 {
		s.ClusterPods = s.NodePods
	}
	if o.EveryAddress {
		s.NodePortAddresses = slices.DeleteFunc(slices.Clone(lasting), netip.Addr.IsLoopback)
		return s
	}
	for _, f := range inet.Families {
		if a, ok := primary(own, f); ok && slices.Contains(local, a) {
			s.NodePortAddresses = append(s.NodePortAddresses, a)
		}
	}
	return s
}

// primary returns the first address of a node in a family.
func primary(n *cluster.Node, f inet.Family) (netip.Addr, bool) {
	if n == nil {
		return netip.Addr{}, false
	}
	at := slices.IndexFunc(n.Addrs, func(a netip.Addr) bool { return inet.FamilyOf(a) == f })
	if at < 0 {
		return netip.Addr{}, false
	}
	return n.Addrs[at], true
}
