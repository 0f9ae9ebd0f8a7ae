// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// TaintToBeDeleted is the taint with which the cluster autoscaler marks a node that it removes.
const TaintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

// Node converts a Node. Host names are left out: resolving them would mean trusting a name server
// as well. The result does not reference n.
func Node(n *corev1.Node) *cluster.Node {
	node := &cluster.Node{Name: strings.Clone(n.Name), Zone: strings.Clone(n.Labels[corev1.LabelTopologyZone]),
		PodCIDRs: podRanges(&n.Spec), Leaving: n.DeletionTimestamp != nil || slices.ContainsFunc(n.Spec.Taints,
			func(t corev1.Taint) bool { return t.Key == TaintToBeDeleted })}
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

// podRanges reads spec.podCIDRs, or spec.podCIDR if only that is set. The API checks both; a range
// that cannot be read is left out, so that no foreign address counts as a pod's.
func podRanges(spec *corev1.NodeSpec) (list []netip.Prefix) {
	texts := spec.PodCIDRs
	if len(texts) == 0 && spec.PodCIDR != "" {
		texts = []string{spec.PodCIDR}
	}
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			continue
		}
		if p = p.Masked(); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}
