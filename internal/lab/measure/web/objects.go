// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/complete/kubelet"
)

// The cluster of the reference setup. Two of its nodes are real here.
const (
	nodes = 100
	port  = 80
	// The pods and the policy are in default, those who ask are elsewhere.
	home   = metav1.NamespaceDefault
	abroad = "clients"
	// tested is the Service that ab asks.
	tested        = "tested"
	testedAddress = "10.96.0.10"
)

// pod is one that the cluster has.
type pod struct {
	namespace, name string
	node            int // counted from 1
	addr            netip.Addr
	service         int // which one of those that do nothing, counted from 0
}

func nodeName(n int) string { return fmt.Sprintf("node%d", n) }

// podAddr is the address of the k-th pod of a node. The lowest belong to the
// node itself.
func podAddr(node, k int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 244, byte(node), byte(2 + k)})
}

// idlePods are the pods of the Services that do nothing: replica by replica,
// and the replicas of one Service on different nodes. The list for fewer pods
// is its beginning.
func idlePods(services, count int) []pod {
	list := make([]pod, count)
	var on [nodes]int
	for i := range list {
		// 7 has no factor in common with 100.
		n := (i + 7*(i/services)) % nodes
		on[n]++
		list[i] = pod{home, fmt.Sprintf("idle-%d", i), n + 1, podAddr(n+1, on[n]), i % services}
	}
	return list
}

// servers are the two pods that ab asks: one on each real node.
func servers() []pod {
	return []pod{
		{namespace: home, name: "nginx-1", node: 1, addr: podAddr(1, 0)},
		{namespace: home, name: "nginx-2", node: 2, addr: podAddr(2, 0)},
	}
}

// client is allowed by the policy, and a stranger is not. They are pods, on one
// node, so that replies go back the way that the request came.
func client() pod {
	return pod{namespace: abroad, name: "client", node: 1, addr: netip.AddrFrom4([4]byte{14, 215, 0, 5})}
}

func stranger() pod {
	return pod{namespace: abroad, name: "stranger", node: 1, addr: netip.AddrFrom4([4]byte{14, 216, 0, 5})}
}

// object is the pod as the API has it; host are the addresses of its node.
func (p pod) object(host []netip.Addr) *corev1.Pod {
	o := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, Labels: map[string]string{"app": p.name}},
		Spec: corev1.PodSpec{NodeName: nodeName(p.node),
			Containers: []corev1.Container{{Name: "nginx", Image: "nginx"}}},
	}
	kubelet.Run(o, host, []netip.Addr{p.addr})
	return o
}

// nodeObject is a node with its addresses.
func nodeObject(n int, addrs []netip.Addr) *corev1.Node {
	o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(n)},
		Spec: corev1.NodeSpec{PodCIDR: fmt.Sprintf("10.244.%d.0/24", n)}}
	o.Spec.PodCIDRs = []string{o.Spec.PodCIDR}
	for _, a := range addrs {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP,
			Address: a.String()})
	}
	return o
}

func idleService(i int) string { return fmt.Sprintf("idle-%d", i) }

// serviceObject is a Service; an empty address lets the server choose.
func serviceObject(name, addr string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: addr, Ports: []corev1.ServicePort{
			{Name: "http", Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(port)}}},
	}
}

// sliceObject is what a controller would write about the pods behind a Service.
func sliceObject(service, suffix string, pods []pod) *discoveryv1.EndpointSlice {
	name, protocol, number, ready := "http", corev1.ProtocolTCP, int32(port), true
	o := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: service + "-" + suffix,
			Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &number}},
	}
	for _, p := range pods {
		node := nodeName(p.node)
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{p.addr.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return o
}

// policy is the reference setup's, with its three rules, in the API version of
// today.
func policy() *networkingv1.NetworkPolicy {
	o := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "npd"},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}
	tcp := corev1.ProtocolTCP
	for _, n := range []int{9090, 8080, 80} {
		number := intstr.FromInt32(int32(n))
		o.Spec.Ingress = append(o.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "14.215.0.0/16"}}},
			Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &number}},
		})
	}
	return o
}
