// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
)

const (
	nodeName  = "node1"
	namespace = "bench"
	// port is that of Services and of endpoints.
	port = 80
)

// Addresses have a second byte from 64 on: see package witness.

// clientAddr and serverAddr are pods of the node. The server has one address for each endpoint of a Service.
func clientAddr() netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, 5}) }

func serverAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, byte(20 + i)}) }

// clusterAddr is the cluster address of a Service.
func clusterAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 96, byte((i + 256) >> 8), byte(i)})
}

// freshAddr is an endpoint that a change brings. Nobody has the address.
func freshAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}) }

func key(name string) cluster.Key { return cluster.Key{Namespace: namespace, Name: name} }

// transport is the protocol of a Service: every second one has TCP.
func transport(i int) corev1.Protocol {
	if i%2 == 1 {
		return corev1.ProtocolTCP
	}
	return corev1.ProtocolUDP
}

func name(i int) string { return fmt.Sprintf("s%d", i) }

func service(i int) *corev1.Service {
	vip := clusterAddr(i).String()
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name(i)},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: vip, ClusterIPs: []string{vip},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Port: port, Protocol: transport(i)}}}}
}

// slice has the endpoints of a Service.
func slice(i int, endpoints []netip.Addr) *discoveryv1.EndpointSlice {
	number, protocol, none, yes := int32(port), transport(i), "", true
	node := nodeName
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name(i) + "-x",
		Labels: map[string]string{discoveryv1.LabelServiceName: name(i)}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &none, Port: &number, Protocol: &protocol}}}
	for _, a := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}})
	}
	return s
}

// endpoints are those that every Service has at first.
func (s Size) endpoints() []netip.Addr {
	list := make([]netip.Addr, s.Endpoints)
	for i := range list {
		list[i] = serverAddr(i)
	}
	return list
}

// objects are the whole cluster, but for the address of the node.
func (s Size) objects(node netip.Addr) []listwatch.Object {
	list := []listwatch.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName},
			Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP,
				Address: node.String()}}}},
	}
	for i := range s.Services {
		list = append(list, service(i), slice(i, s.endpoints()))
	}
	return list
}

// fronts are the Services of a protocol, with their ports.
func (s Size) fronts(p corev1.Protocol) (list []netip.AddrPort) {
	for i := range s.Services {
		if transport(i) == p {
			list = append(list, netip.AddrPortFrom(clusterAddr(i), port))
		}
	}
	return list
}
