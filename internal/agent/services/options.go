// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
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
	// IPVS chooses endpoints.
	IPVS bool
	// MasqueradeAll masquerades every connection to a cluster address.
	MasqueradeAll bool
	// AnyExternal serves external addresses and those of load balancers without regard to the ranges.
	AnyExternal                        bool
	ExternalRanges, LoadBalancerRanges []netip.Prefix
}

// settings returns the settings of a node with that object, which is nil if there is none, with these addresses
// of its own and of the API server.
func (o Options) settings(own *cluster.Node, local, api []netip.Addr) service.Settings {
	return service.Settings{
		Node: o.Node, APIServer: api, ServiceRanges: o.ServiceRanges, ClusterPods: o.ClusterPods,
		MasqueradeAll: o.MasqueradeAll, IPVS: o.IPVS, Strict: !o.AnyExternal, ExternalRanges: o.ExternalRanges,
		LoadBalancerRanges: o.LoadBalancerRanges,
	}.On(own, local, o.EveryAddress)
}
