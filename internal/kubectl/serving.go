// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/proxy/service"
)

// withRanges returns nodes with the ranges of pods that are written of them.
func withRanges(nodes, written []*cluster.Node) (list []*cluster.Node) {
	for _, n := range nodes {
		one := *n
		for _, w := range written {
			if w.Name == n.Name {
				one.PodCIDRs = w.PodCIDRs
			}
		}
		list = append(list, &one)
	}
	return list
}

// servingAs returns the settings of the service proxy of a node as the flags of its agent have them, of agents in a
// namespace, and whether it serves Services. Without an agent, or if its flags cannot be read here, they are the
// defaults.
func servingAs(pods []corev1.Pod, namespace string) func(*cluster.Node) (service.Settings, bool) {
	return func(n *cluster.Node) (set service.Settings, runs bool) {
		set = service.Settings{Node: n.Name, Strict: true}
		every := false
		for i := range pods {
			if pods[i].Namespace != namespace || pods[i].Spec.NodeName != n.Name {
				continue
			}
			if c, ok := configOf(&pods[i]); ok {
				s := c.Services
				every, runs = s.EveryAddress, c.RunServiceProxy
				set.ServiceRanges, set.ClusterPods, set.MasqueradeAll = s.ClusterRanges, s.ClusterPods, s.MasqueradeAll
				set.Strict = !s.AnyExternal
				set.ExternalRanges, set.LoadBalancerRanges = s.ExternalRanges, s.LoadBalancerRanges
			}
		}
		return set.On(n, n.Addrs, every), runs
	}
}

// configOf reads the flags of an agent's pod, without those that the kubelet fills in.
func configOf(p *corev1.Pod) (config.Config, bool) {
	for _, c := range p.Spec.Containers {
		if c.Name != agentContainer {
			continue
		}
		args := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.Contains(a, "$(") })
		parsed, _, err := config.Parse(args, func(string) string { return p.Spec.NodeName }, io.Discard)
		return parsed, err == nil
	}
	return config.Config{}, false
}
