// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// On returns the settings on a node with that object, which is nil if there is none, and these addresses. Node
// ports are at the first address of each family that the object has, if it is one of them; with everyAddress at
// all but loopback ones. Where no ranges of all pods are given, those of the node's pods are taken.
func (s Settings) On(own *cluster.Node, local []netip.Addr, everyAddress bool) Settings {
	// Every pod's interface brings a link-local address, at which no Service can be: a new one must not have
	// all Services computed again.
	s.OwnAddresses = slices.DeleteFunc(slices.Clone(local), netip.Addr.IsLinkLocalUnicast)
	s.NodePortAddresses, s.NodePods = nil, nil
	if own != nil {
		s.NodePods = own.PodCIDRs
	}
	if len(s.ClusterPods) == 0 {
		s.ClusterPods = s.NodePods
	}
	if everyAddress {
		s.NodePortAddresses = slices.DeleteFunc(slices.Clone(s.OwnAddresses), netip.Addr.IsLoopback)
		return s
	}
	for i := range inet.Families {
		if a := newEnvironment(s, own).primary[i]; a.IsValid() && slices.Contains(local, a) {
			s.NodePortAddresses = append(s.NodePortAddresses, a)
		}
	}
	return s
}
