// SPDX-License-Identifier: Apache-2.0

// Package endpoints computes the endpoints of Services from pods, as the EndpointSlice controller of
// a cluster does, for where there is no controller: manifests. It is pure and looks at nothing but
// what it is given.
package endpoints

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// Selected returns the pods that a Service with a selector leads to, ready or not. A Service without
// a selector leads to none.
func Selected(s *corev1.Service, pods []*cluster.Pod) (list []*cluster.Pod) {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for _, p := range pods {
		if p.Key.Namespace == s.Namespace && !p.Finished && selector.Matches(p.Labels) {
			list = append(list, p)
		}
	}
	return list
}

// Protocol reads the protocol of a port of a Service.
func Protocol(p corev1.ServicePort) (cluster.Protocol, bool) {
	return cluster.ParseProtocol(cmp.Or(string(p.Protocol), cluster.TCP.String()))
}

// TargetPort returns the number at which a pod serves a port of a Service; 0 if it does not. A name
// is that of a container port of the same protocol.
func TargetPort(p corev1.ServicePort, protocol cluster.Protocol, pod *cluster.Pod) uint16 {
	if p.TargetPort.Type == intstr.String {
		for _, n := range pod.NamedPorts() {
			if n.Name == p.TargetPort.StrVal && n.Protocol == protocol {
				return n.Port
			}
		}
		return 0
	}
	n := cmp.Or(p.TargetPort.IntVal, p.Port)
	if n < 1 || n > 65535 {
		return 0
	}
	return uint16(n)
}

// Slices returns the EndpointSlices of a Service: one for each family and each set of port numbers,
// in a fixed order. pods may be of any namespace; ready says which of them take connections. The
// names are such as no object of the API can have.
func Slices(s *corev1.Service, pods []*cluster.Pod, ready func(*cluster.Pod) bool) []*cluster.EndpointSlice {
	var list []*cluster.EndpointSlice
	byName := map[string]*cluster.EndpointSlice{}
	for _, p := range Selected(s, pods) {
		ports := portsOf(s, p)
		for _, f := range inet.Families {
			i := slices.IndexFunc(p.IPs, func(a netip.Addr) bool { return inet.FamilyOf(a) == f })
			if i < 0 {
				continue
			}
			name := fmt.Sprint(s.Name, ":", f, ":", ports)
			slice := byName[name]
			if slice == nil {
				slice = &cluster.EndpointSlice{Key: cluster.Key{Namespace: s.Namespace, Name: name}, Service: s.Name,
					Ports: ports}
				byName[name] = slice
				list = append(list, slice)
			}
			slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{Addr: p.IPs[i],
				Placement: placement(s, p, ready(p))})
		}
	}
	for _, slice := range list {
		slices.SortFunc(slice.Endpoints, func(a, b cluster.Endpoint) int { return a.Addr.Compare(b.Addr) })
	}
	slices.SortFunc(list, func(a, b *cluster.EndpointSlice) int { return a.Key.Compare(b.Key) })
	return list
}

// portsOf returns where a pod serves the ports of a Service; those that it does not serve are left
// out.
func portsOf(s *corev1.Service, p *cluster.Pod) (list []cluster.EndpointPort) {
	for _, port := range s.Spec.Ports {
		protocol, ok := Protocol(port)
		if n := TargetPort(port, protocol, p); ok && n != 0 {
			list = append(list, cluster.EndpointPort{Name: port.Name, Protocol: protocol, Port: n})
		}
	}
	return list
}

// placement says in which state a pod is as an endpoint.
func placement(s *corev1.Service, p *cluster.Pod, ready bool) *cluster.Placement {
	return &cluster.Placement{Node: p.Node, Serving: ready, Terminating: p.Terminating,
		Ready: ready && !p.Terminating || s.Spec.PublishNotReadyAddresses}
}
