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
	nodeName = "node1"
	// port is that of Services and of endpoints.
	port = 80
	// perNamespace is how many Services a namespace has: the agent bounds what one namespace takes.
	perNamespace = 1000
)

// address is an address of a world: itself, or with IPv6 the one of a prefix that ends with it.
func (s Size) address(prefix byte, a netip.Addr) netip.Addr {
	if !s.IPv6 {
		return a
	}
	b, four := [16]byte{0: 0xfd, 3: prefix}, a.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

// The prefixes of IPv6: pods are on a link of their own.
const (
	podPrefix     = 1
	servicePrefix = 2
)

// Addresses have a second byte from 64 on: see package witness.

// clientAddr and serverAddr are pods of the node. The server has one address for each endpoint of a Service.
func (s Size) clientAddr() netip.Addr {
	return s.address(podPrefix, netip.AddrFrom4([4]byte{10, 244, 1, 5}))
}

func (s Size) serverAddr(i int) netip.Addr {
	return s.address(podPrefix, netip.AddrFrom4([4]byte{10, 244, 1, byte(20 + i)}))
}

// podRange is that of the node's pods.
func (s Size) podRange() netip.Prefix {
	a := s.address(podPrefix, netip.AddrFrom4([4]byte{10, 244, 1, 0}))
	return netip.PrefixFrom(a, a.BitLen()-8)
}

// clusterAddr is the cluster address of a Service.
func (s Size) clusterAddr(i int) netip.Addr {
	return s.address(servicePrefix, netip.AddrFrom4([4]byte{10, 96, byte((i + 256) >> 8), byte(i)}))
}

// freshAddr is an endpoint that a change brings. Nobody has the address.
func (s Size) freshAddr(i int) netip.Addr {
	return s.address(podPrefix, netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}))
}

func namespace(i int) string { return fmt.Sprintf("bench-%d", i/perNamespace) }

func key(name string) cluster.Key { return cluster.Key{Namespace: namespace(0), Name: name} }

// transport is the protocol of a Service: every second one has TCP.
func transport(i int) corev1.Protocol {
	if i%2 == 1 {
		return corev1.ProtocolTCP
	}
	return corev1.ProtocolUDP
}

func name(i int) string { return fmt.Sprintf("s%d", i) }

func (s Size) service(i int) *corev1.Service {
	vip, family := s.clusterAddr(i).String(), corev1.IPv4Protocol
	if s.IPv6 {
		family = corev1.IPv6Protocol
	}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace(i), Name: name(i)},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: vip, ClusterIPs: []string{vip},
			IPFamilies: []corev1.IPFamily{family},
			Ports:      []corev1.ServicePort{{Port: port, Protocol: transport(i)}}}}
}

// slice has the endpoints of a Service.
func (s Size) slice(i int, endpoints []netip.Addr) *discoveryv1.EndpointSlice {
	family := discoveryv1.AddressTypeIPv4
	if s.IPv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	number, protocol, none, yes := int32(port), transport(i), "", true
	node := nodeName
	o := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace(i), Name: name(i) + "-x",
		Labels: map[string]string{discoveryv1.LabelServiceName: name(i)}}, AddressType: family,
		Ports: []discoveryv1.EndpointPort{{Name: &none, Port: &number, Protocol: &protocol}}}
	for _, a := range endpoints {
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}})
	}
	return o
}

// endpoints are those that every Service has at first.
func (s Size) endpoints() []netip.Addr {
	list := make([]netip.Addr, s.Endpoints)
	for i := range list {
		list[i] = s.serverAddr(i)
	}
	return list
}

// objects are the whole cluster, but for the addresses of the node.
func (s Size) objects(host []netip.Addr) []listwatch.Object {
	pods := s.podRange().String()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName},
		Spec: corev1.NodeSpec{PodCIDR: pods, PodCIDRs: []string{pods}}}
	for _, a := range host {
		if a.Is6() == s.IPv6 {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP,
				Address: a.String()})
		}
	}
	list := []listwatch.Object{node}
	for i := range s.Services {
		if i%perNamespace == 0 {
			list = append(list, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i)}})
		}
		list = append(list, s.service(i), s.slice(i, s.endpoints()))
	}
	return list
}

// fronts are the Services of a protocol to which packets are sent, with their ports: all but the last one (see
// settle).
func (s Size) fronts(p corev1.Protocol) (list []netip.AddrPort) {
	for i := range s.Services - 1 {
		if transport(i) == p {
			list = append(list, netip.AddrPortFrom(s.clusterAddr(i), port))
		}
	}
	return list
}
