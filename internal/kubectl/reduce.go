// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// Objects as a bundle has them: in the form of the API, with the fields that are named here and no others.
// What is added here is seen by everybody who reads a bug report.

// reducedMeta keeps the identity, the labels, and the annotations that podwall obeys.
func reducedMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	now := metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Generation: m.Generation, CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
		Labels: m.Labels}
	for _, name := range []string{cluster.ModeAnnotation, cluster.ExtraAnnotation, corev1.MirrorPodAnnotationKey} {
		if value, ok := m.Annotations[name]; ok {
			if now.Annotations == nil {
				now.Annotations = map[string]string{}
			}
			now.Annotations[name] = value
		}
	}
	return now
}

// reducedPod keeps the addresses, the node, the phase, and the ports that containers declare.
func reducedPod(p *corev1.Pod) *corev1.Pod {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: reducedMeta(&p.ObjectMeta),
		Spec: corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
			Containers: reducedContainers(p.Spec.Containers), InitContainers: reducedContainers(p.Spec.InitContainers)},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs,
			HostIP: p.Status.HostIP, HostIPs: p.Status.HostIPs}}
}

func reducedContainers(list []corev1.Container) (now []corev1.Container) {
	for i := range list {
		c := corev1.Container{Name: list[i].Name}
		for _, p := range list[i].Ports {
			c.Ports = append(c.Ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort,
				Protocol: p.Protocol, HostPort: p.HostPort})
		}
		now = append(now, c)
	}
	return now
}

func reducedPolicy(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: reducedMeta(&p.ObjectMeta), Spec: p.Spec}
}

// reducedText is reducedPolicy of a text, which keeps fields that are misspelt.
func reducedText(text []byte) (any, error) {
	var p struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   metav1.ObjectMeta `json:"metadata"`
		Spec       json.RawMessage   `json:"spec"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("decoding a policy: %w", err)
	}
	p.Metadata = reducedMeta(&p.Metadata)
	return p, nil
}

func reducedNamespace(n *corev1.Namespace) *corev1.Namespace {
	return &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: reducedMeta(&n.ObjectMeta)}
}

// reducedNode keeps the addresses and what the kernel and the runtime are. A node's labels are not read.
func reducedNode(n *corev1.Node) *corev1.Node {
	meta, info := reducedMeta(&n.ObjectMeta), n.Status.NodeInfo
	meta.Labels = nil
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: meta,
		Spec: corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: slices.Clone(n.Spec.PodCIDRs)},
		Status: corev1.NodeStatus{Addresses: n.Status.Addresses, NodeInfo: corev1.NodeSystemInfo{
			KernelVersion: info.KernelVersion, OSImage: info.OSImage, Architecture: info.Architecture,
			OperatingSystem: info.OperatingSystem, ContainerRuntimeVersion: info.ContainerRuntimeVersion,
			KubeletVersion: info.KubeletVersion}}}
}

// reducedObjects are the objects of a bundle, by the name of their resource.
type reducedObjects map[string][]any

// bundledKinds are the resources that a bundle has. It asks for no others.
func bundledKinds() []string { return []string{"namespaces", "networkpolicies", "nodes", "pods"} }

func (r reducedObjects) add(resource string, o any) { r[resource] = append(r[resource], o) }
