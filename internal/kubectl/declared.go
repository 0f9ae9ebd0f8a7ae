// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/inet"
)

// declaredPorts are all ports of a pod's containers.
func declaredPorts(p *corev1.Pod) (list []cluster.NamedPort) {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, port := range c.Ports {
			protocol, ok := cluster.ParseProtocol(cmp.Or(string(port.Protocol), "TCP"))
			if ok && port.ContainerPort > 0 && port.ContainerPort <= 65535 {
				list = append(list, cluster.NamedPort{Name: port.Name, Protocol: protocol,
					Port: uint16(port.ContainerPort)})
			}
		}
	}
	return list
}

// maxPorts bounds what is chosen for a user who names no port.
const maxPorts = 12

// usualPorts are the ports that containers declare and policies name, and how many were
// left out.
func (sc *scene) usualPorts() (list []matrix.Port, left int) {
	for _, ports := range sc.declared {
		for _, p := range ports {
			list = append(list, matrix.Port{Protocol: inet.Protocol(p.Protocol), Number: p.Port})
		}
	}
	for _, p := range sc.snap.Policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, port := range r.Ports.List {
				if port.First > 0 {
					list = append(list, matrix.Port{Protocol: inet.Protocol(port.Protocol), Number: port.First},
						matrix.Port{Protocol: inet.Protocol(port.Protocol), Number: port.Last})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b matrix.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	if list = slices.Compact(list); len(list) == 0 {
		list = []matrix.Port{{Protocol: inet.TCP, Number: 80}}
	}
	n := min(len(list), maxPorts)
	return list[:n], len(list) - n
}

// parsePortFlag reads tcp:80, or the notation of a destination's port: 80, 53/udp, icmp.
func parsePortFlag(text string) (matrix.Port, error) {
	written := strings.ToLower(strings.TrimSpace(text))
	if protocol, number, found := strings.Cut(written, ":"); found {
		written = number + "/" + protocol
	}
	p, err := parsePort(written)
	if err != nil || p.name != "" {
		return matrix.Port{}, fmt.Errorf("--port %s: want tcp:80, 80, 53/udp or icmp", strconv.Quote(text))
	}
	return matrix.Port{Protocol: p.protocol, Number: p.number}, nil
}

func parsePortFlags(list []string) (ports []matrix.Port, err error) {
	for _, text := range list {
		p, err := parsePortFlag(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return ports, nil
}

// parseHosts reads the addresses of --host.
func (sc *scene) parseHosts(list []string) (hosts []netip.Addr, err error) {
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("--host %s: want an address, as in 203.0.113.10", strconv.Quote(text))
		}
		if a = a.Unmap(); sc.taken(a) {
			return nil, fmt.Errorf("--host %s: a pod, a node or a Service has this address; want one outside", a)
		}
		if !slices.Contains(hosts, a) {
			hosts = append(hosts, a)
		}
	}
	return hosts, nil
}

// usualHosts are addresses outside: one of each family, and one in each block that a policy
// names, as far as there is room.
func usualHosts(scenes ...*scene) []netip.Addr {
	var policies []*cluster.Policy
	for _, sc := range scenes {
		policies = append(policies, sc.snap.Policies...)
	}
	return complete.Outside(policies, func(a netip.Addr) bool {
		return slices.ContainsFunc(scenes, func(sc *scene) bool { return sc.taken(a) })
	})
}
