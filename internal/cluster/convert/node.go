// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// Node converts a Node. Host names are left out: resolving them would mean trusting a name server
// as well. The result does not reference n.
func Node(n *corev1.Node) *cluster.Node {
	node := &cluster.Node{Name: strings.Clone(n.Name), Zone: strings.Clone(n.Labels[corev1.LabelTopologyZone])}
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		if err != nil || ip.Zone() != "" {
			continue
		}
		if ip = ip.Unmap(); !ip.IsUnspecified() && !slices.Contains(node.Addrs, ip) {
			node.Addrs = append(node.Addrs, ip)
		}
	}
	return node
}
