// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/trial"
)

// chooseHosts returns hosts outside for a user who names none; see complete.Outside.
func chooseHosts(policies []*cluster.Policy, taken func(netip.Addr) bool) []trial.Host {
	var list []trial.Host
	for _, a := range complete.Outside(policies, taken) {
		list = append(list, trial.Host{Name: a.String(), Addrs: []netip.Addr{a}})
	}
	return list
}

// choosePorts returns ports for a user who names none; see complete.Ports.
func choosePorts(pods []*corev1.Pod, policies []*cluster.Policy) []port {
	var list []port
	for _, p := range complete.Ports(pods, policies) {
		list = append(list, port{packet.Protocol(p.Protocol), p.Number})
	}
	return list
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
