// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/trial"
)

// maxHosts and maxPorts bound what is chosen for a user who names nothing.
const maxHosts, maxPorts = 8, 12

// chooseHosts returns hosts outside that have addresses which are not taken: one of each
// family, and such that for every block that a policy names there is one inside it, and
// one in each of its holes.
func chooseHosts(policies []*cluster.Policy, taken func(netip.Addr) bool) []trial.Host {
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
	var list []trial.Host
	for _, a := range hosts {
		list = append(list, trial.Host{Name: a.String(), Addrs: []netip.Addr{a}})
	}
	return list
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

// choosePorts returns the ports that containers declare and policies name.
func choosePorts(pods []*corev1.Pod, policies []*cluster.Policy) []port {
	var list []port
	for _, p := range pods {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			for _, cp := range c.Ports {
				proto, _ := cluster.ParseProtocol(cmp.Or(string(cp.Protocol), "TCP"))
				list = append(list, port{packet.Protocol(proto), uint16(cp.ContainerPort)})
			}
		}
	}
	for _, p := range policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, rp := range r.Ports.List {
				if rp.First > 0 {
					list = append(list, port{packet.Protocol(rp.Protocol), rp.First}, port{packet.Protocol(rp.Protocol), rp.Last})
				}
			}
		}
	}
	list = slices.DeleteFunc(list, func(p port) bool { return p.number == 0 || p.proto == 0 })
	slices.SortFunc(list, func(a, b port) int { return cmp.Or(cmp.Compare(a.proto, b.proto), cmp.Compare(a.number, b.number)) })
	if list = slices.Compact(list); len(list) == 0 {
		list = []port{{packet.TCP, 80}}
	}
	return list[:min(len(list), maxPorts)]
}

// endsOf returns the rows: pods with a network of their own, then hosts. A pod is a row
// once more for each further address that it has.
func endsOf(pods []*cluster.Pod, hosts []trial.Host, made map[cluster.Key]string) []end {
	var list []end
	for _, p := range pods {
		if !p.Networked() || p.Node == "" {
			continue
		}
		own := end{name: p.Key.String(), place: p.Key.String(), pod: p, workload: made[p.Key]}
		var further []end
		for _, a := range p.IPs {
			if e := p.Extra(); e == nil || !slices.Contains(e.Addrs, a) {
				own.addrs = append(own.addrs, a)
				continue
			}
			e := own
			e.name, e.further, e.addrs = fmt.Sprintf("%s at %s", own.name, a), a.String(), []netip.Addr{a}
			further = append(further, e)
		}
		list = append(append(list, own), further...)
	}
	for _, h := range hosts {
		list = append(list, end{name: h.Name, place: h.Name, addrs: h.Addrs})
	}
	for i := range list {
		list[i].short = fmt.Sprint(i + 1)
	}
	return list
}

func parseHosts(list []string) ([]trial.Host, error) {
	var hosts []trial.Host
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("unknown host %q, want an address, as in 203.0.113.10", s)
		}
		hosts = append(hosts, trial.Host{Name: a.Unmap().String(), Addrs: []netip.Addr{a.Unmap()}})
	}
	return hosts, nil
}

func parsePorts(list []string) ([]port, error) {
	var ports []port
	for _, s := range list {
		p, err := parsePort(strings.ToLower(strings.TrimSpace(s)))
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}
