// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// maxHosts and maxPorts bound what is chosen for a user who names nothing.
const maxHosts, maxPorts = 8, 12

// Outside returns addresses outside of the cluster that are not taken: one of each
// family, and such that for every block that a policy names there is one inside it, and
// one in each of its excepts. There are at most eight.
func Outside(policies []*cluster.Policy, taken func(netip.Addr) bool) []netip.Addr {
	var hosts []netip.Addr
	for _, text := range []string{"203.0.113.10", "2001:db8:cafe::a"} {
		a := netip.MustParseAddr(text)
		for taken(a) {
			a = a.Next()
		}
		hosts = append(hosts, a)
	}
	add := func(in netip.Prefix, wanted func(netip.Addr) bool) {
		if len(hosts) >= maxHosts || slices.ContainsFunc(hosts, wanted) {
			return
		}
		a := in.Masked().Addr()
		for range 300 {
			if a = a.Next(); !a.IsValid() || !in.Contains(a) {
				break
			}
			if wanted(a) && usable(a) && !taken(a) {
				hosts = append(hosts, a)
				return
			}
		}
		if a := in.Addr(); in.IsSingleIP() && usable(a) && !taken(a) {
			hosts = append(hosts, a)
		}
	}
	for _, b := range blocks(policies) {
		add(b.CIDR, b.Contains)
		for _, hole := range b.Except {
			add(hole, hole.Contains)
		}
	}
	return hosts
}

func blocks(policies []*cluster.Policy) []*cluster.IPBlock {
	var list []*cluster.IPBlock
	for _, p := range policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, peer := range r.Peers.List {
				if peer.Block != nil {
					list = append(list, peer.Block)
				}
			}
		}
	}
	return list
}

// usable leaves out what no host can have, and the first address of a subnet, which
// may be a bridge's.
func usable(a netip.Addr) bool {
	if !a.IsGlobalUnicast() {
		return false
	}
	b := a.AsSlice()
	return a.Is6() && b[15] > 1 || a.Is4() && b[3] > 1 && b[3] < 255
}

// Port is a port of a protocol.
type Port struct {
	Protocol cluster.Protocol
	Number   uint16
}

// Ports returns the ports that containers declare and policies name, 80 of TCP if there
// are none. There are at most twelve.
func Ports(pods []*corev1.Pod, policies []*cluster.Policy) []Port {
	var list []Port
	for _, p := range pods {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			for _, cp := range c.Ports {
				protocol, _ := cluster.ParseProtocol(cmp.Or(string(cp.Protocol), "TCP"))
				list = append(list, Port{protocol, uint16(cp.ContainerPort)})
			}
		}
	}
	for _, p := range policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, rp := range r.Ports.List {
				if rp.First > 0 {
					list = append(list, Port{rp.Protocol, rp.First}, Port{rp.Protocol, rp.Last})
				}
			}
		}
	}
	list = slices.DeleteFunc(list, func(p Port) bool { return p.Number == 0 || p.Protocol == 0 })
	slices.SortFunc(list, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	if list = slices.Compact(list); len(list) == 0 {
		list = []Port{{cluster.TCP, 80}}
	}
	return list[:min(len(list), maxPorts)]
}
