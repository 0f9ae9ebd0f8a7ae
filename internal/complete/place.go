// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete/kubelet"
	"github.com/podwall/podwall/internal/source/manifest"
)

// Addresses is a set of addresses that are taken.
type Addresses map[netip.Addr]bool

// List returns the addresses in order.
func (b Addresses) List() []netip.Addr {
	var list []netip.Addr
	for a := range b {
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// Add adds addresses.
func (b Addresses) Add(list ...netip.Addr) {
	for _, a := range list {
		b[a] = true
	}
}

func (b Addresses) addText(list ...string) {
	for _, s := range list {
		if a, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil {
			b.Add(a.WithZone("").Unmap())
		}
	}
}

// used collects what pods, Services, policies and hosts have or name. Where nodes have
// addresses of their own, a policy may name one of them, or what was made up before.
func (in *Input) used(loaded *manifest.Result, o Options) Addresses {
	used := Addresses{}
	for _, p := range in.Pods {
		used.addText(strings.Split(p.Annotations[cluster.ExtraAnnotation], ",")...)
		if !p.Spec.HostNetwork {
			used.addText(addresses(p)...)
		}
	}
	for _, s := range loaded.Services {
		used.addText(append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP)...)
	}
	for _, b := range blocks(loaded.Policies) {
		if b.CIDR.IsSingleIP() && !o.NodeAddresses {
			used.Add(b.CIDR.Addr())
		}
	}
	used.Add(o.Hosts...)
	return used
}

// assign gives pods what they lack: a node in turn, and addresses that follow from the
// node and that nobody uses.
func (in *Input) assign(used Addresses) map[*corev1.Pod][]netip.Addr {
	chosen := map[*corev1.Pod][]netip.Addr{}
	for i, p := range in.Pods {
		if p.Spec.NodeName == "" {
			p.Spec.NodeName = in.Nodes[i%len(in.Nodes)]
		}
		if !p.Spec.HostNetwork && len(addresses(p)) == 0 {
			chosen[p] = in.choose(p.Spec.NodeName, used)
		}
	}
	return chosen
}

// locateAll writes the chosen addresses into the pods' status. Pods of the node's
// network have its addresses.
func (in *Input) locateAll(chosen map[*corev1.Pod][]netip.Addr, nodes []*cluster.Node) {
	for _, p := range in.Pods {
		host := nodes[slices.Index(in.Nodes, p.Spec.NodeName)].Addrs
		if addrs, lacks := chosen[p]; lacks {
			locate(p, host, addrs)
		}
		if p.Spec.HostNetwork {
			locate(p, host, host)
		}
	}
}

// locate gives a pod its addresses. One that has a phase keeps it.
func locate(p *corev1.Pod, host, addrs []netip.Addr) {
	phase := p.Status.Phase
	kubelet.Run(p, host, addrs)
	p.Status.Phase = cmp.Or(phase, p.Status.Phase)
}

func addresses(p *corev1.Pod) []string {
	var list []string
	for _, a := range p.Status.PodIPs {
		list = append(list, a.IP)
	}
	if p.Status.PodIP != "" && !slices.Contains(list, p.Status.PodIP) {
		list = append(list, p.Status.PodIP)
	}
	return list
}

// choose returns the next free pair of addresses of a node's ranges: 10.244.N.0/24,
// then 10.245.N.0/24 and so on.
func (in *Input) choose(node string, used Addresses) []netip.Addr {
	n := byte(slices.Index(in.Nodes, node) + 1)
	for second := range byte(12) {
		for host := byte(10); host < 250; host++ {
			four := netip.AddrFrom4([4]byte{10, 244 + second, n, host})
			six := netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x02, 3: 0x44 + second, 5: n,
				14: host / 100, 15: host/10%10<<4 | host%10})
			if !used[four] && !used[six] {
				used.Add(four, six)
				return []netip.Addr{four, six}
			}
		}
	}
	return nil // the pod then has no address, and is left out
}
