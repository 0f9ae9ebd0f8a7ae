// SPDX-License-Identifier: Apache-2.0

// Package scale makes large clusters for benchmarks: API objects of a given
// shape, the same at every run. It knows nothing of what is measured with them,
// keeps nothing, and stands before the data path: its objects go through
// package convert like those of an API server.
package scale

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// Shape says how large a cluster is. Pods are spread evenly over namespaces,
// and over nodes; policies over namespaces. Each namespace has Apps
// applications, which is the number of values of the label app.
type Shape struct {
	Namespaces, Pods, Policies, Nodes, Apps int
}

// Seed is the small shape of the bars in docs/performance.md.
func Seed() Shape { return Shape{Namespaces: 100, Pods: 8_000, Policies: 500, Nodes: 100, Apps: 10} }

// Large is the large shape of these bars.
func Large() Shape {
	return Shape{Namespaces: 1_000, Pods: 100_000, Policies: 10_000, Nodes: 1_000, Apps: 10}
}

// Profile is the shape with more policies than pods, of these bars as well.
func Profile() Shape {
	return Shape{Namespaces: 604, Pods: 5_413, Policies: 13_678, Nodes: 60, Apps: 5}
}

// NodeName is the name of a node. Node 0 is that of the agent.
func NodeName(i int) string { return fmt.Sprintf("node-%04d", i) }

// NamespaceName is the name of a namespace.
func NamespaceName(i int) string { return fmt.Sprintf("team-%03d-production", i) }

// Namespace returns a namespace. Every tenth has the label tier=shared.
func (s Shape) Namespace(i int) *corev1.Namespace {
	labels := map[string]string{"kubernetes.io/metadata.name": NamespaceName(i), "team": fmt.Sprintf("team-%03d", i)}
	if i%10 == 0 {
		labels["tier"] = "shared"
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: NamespaceName(i), Labels: labels}}
}

// node spreads the pods of a namespace over nodes.
func (s Shape) node(i int) int { return (i/s.Namespaces + i) % s.Nodes }

// Address is that of a pod.
func Address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(64 + i>>16), byte(i >> 8), byte(i)})
}

// Pod returns a pod as a deployment makes it.
func (s Shape) Pod(i int) *corev1.Pod {
	ns := i % s.Namespaces
	app := i / s.Namespaces % s.Apps
	hash := fmt.Sprintf("%08x%x", (ns*s.Apps+app)*2654435761&0xffffffff, app&15)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("app-%d-backend-%s-%05x", app, hash, i), Namespace: NamespaceName(ns),
			UID: types.UID(fmt.Sprintf("%08x-5a7c-4e1b-9f0d-%012x", i*2654435761&0xffffffff, i)),
			Labels: map[string]string{"app": fmt.Sprintf("app-%d", app), "pod-template-hash": hash,
				"app.kubernetes.io/managed-by": "helm", "role": fmt.Sprintf("role-%d", app%3)},
		},
		Spec: corev1.PodSpec{NodeName: NodeName(s.node(i)),
			Containers: []corev1.Container{
				{Name: "main", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: Address(i).String(),
			PodIPs: []corev1.PodIP{{IP: Address(i).String()}}},
	}
}

// Policy returns a policy: it isolates an application of its namespace and lets
// in another one on two ports, the shared namespaces, and a monitoring range.
// Every tenth isolates for egress too, every twentieth takes the whole
// namespace.
func (s Shape) Policy(i int) *networkingv1.NetworkPolicy {
	ns, n := i%s.Namespaces, i/s.Namespaces
	tcp, port := corev1.ProtocolTCP, intstr.FromInt32(int32(8000+n%64))
	metrics := intstr.FromInt32(9090)
	app := func(i int) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", i%s.Apps)}}
	}
	p := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("allow-%d", n), Namespace: NamespaceName(ns),
			UID: types.UID(fmt.Sprintf("%08x-0000-4e1b-9f0d-%012x", i, i))},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *app(n),
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}},
					From: []networkingv1.NetworkPolicyPeer{{PodSelector: app(n + 1)}}},
				{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &metrics}},
					From: []networkingv1.NetworkPolicyPeer{
						{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "shared"}}},
						{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("172.20.%d.0/24", n%256)}},
					}},
			},
		},
	}
	if i%20 == 0 {
		p.Spec.PodSelector = metav1.LabelSelector{}
	}
	if n%10 == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: app(n + 2)}}}}
	}
	return p
}

// Open is a policy of namespace 0 whose peers are all pods of all namespaces
// with the label role=role-0: a set with a third of the cluster's pods.
func (s Shape) Open() *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "open", Namespace: NamespaceName(0)},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{{
				NamespaceSelector: &metav1.LabelSelector{},
				PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"role": "role-0"}},
			}}}}},
	}
}

// Fill puts the whole cluster into a store, as synced, through an Interner.
func (s Shape) Fill(store *cluster.Store) {
	in := convert.NewInterner().OnNode(NodeName(0)) // as an agent of node 0 has them
	store.Update(func(tx *cluster.Tx) {
		for i := range s.Namespaces {
			tx.SetNamespace(convert.Namespace(s.Namespace(i)))
		}
		for i := range s.Policies {
			p, _ := convert.Policy(s.Policy(i))
			tx.SetPolicy(p)
		}
		open, _ := convert.Policy(s.Open())
		tx.SetPolicy(open)
		pods := make([]*cluster.Pod, s.Pods)
		for i := range pods {
			pods[i] = in.Pod(s.Pod(i))
		}
		tx.ReplacePods(pods)
		for _, k := range cluster.Kinds() {
			tx.SetSynced(k)
		}
	})
}
