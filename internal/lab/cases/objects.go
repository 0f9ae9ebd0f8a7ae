// SPDX-License-Identifier: Apache-2.0

package cases

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/complete/kubelet"
)

// Snapshot returns the step's cluster, converted from API objects as the agent
// does it.
func (s *Step) Snapshot() *cluster.Snapshot {
	snap := &cluster.Snapshot{AuditNamespaces: true}
	for _, n := range s.namespaces() {
		snap.Namespaces = append(snap.Namespaces, convert.Namespace(n))
	}
	for _, p := range s.pods() {
		snap.Pods = append(snap.Pods, convert.Pod(p))
	}
	for _, np := range s.policies() {
		p, _ := convert.Policy(np)
		snap.Policies = append(snap.Policies, p)
	}
	slices.SortFunc(snap.Namespaces, func(a, b *cluster.Namespace) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(snap.Pods, func(a, b *cluster.Pod) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(snap.Policies, func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
	return snap
}

// Manifests returns the step's cluster as Kubernetes YAML, by file name. It is
// one file, so that a reader that renames it into place sees a step as one
// change.
func (s *Step) Manifests() (map[string][]byte, error) {
	var objects []any
	for _, n := range s.namespaces() {
		objects = append(objects, n)
	}
	for _, p := range s.pods() {
		objects = append(objects, p)
	}
	for _, p := range s.policies() {
		objects = append(objects, p)
	}
	var text bytes.Buffer
	for i, o := range objects {
		doc, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("writing manifests of %s: %w", s.ID, err)
		}
		if i > 0 {
			text.WriteString("---\n")
		}
		text.Write(doc)
	}
	return map[string][]byte{"cluster.yaml": text.Bytes()}, nil
}

func (s *Step) namespaces() []*corev1.Namespace {
	var list []*corev1.Namespace
	for _, n := range s.Namespaces {
		list = append(list, &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, Annotations: n.Annotations},
			Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
		})
	}
	return list
}

func (s *Step) pods() []*corev1.Pod {
	var list []*corev1.Pod
	for i := range s.Pods {
		list = append(list, s.Pods[i].object())
	}
	return list
}

func (p *Pod) object() *corev1.Pod {
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, Labels: p.Labels,
			// A pod that comes back with another address is another pod.
			UID: types.UID(fmt.Sprintf("%s/%s@%s", p.Namespace, p.Name, p.first())),
		},
		Spec: corev1.PodSpec{
			NodeName: p.Node, HostNetwork: p.HostNetwork,
			Containers: []corev1.Container{{Name: "main", Image: "none", Ports: p.containerPorts()}},
		},
	}
	kubelet.Run(pod, nil, p.Addrs()) // a case has no addresses of nodes
	pod.Status.Phase = cmp.Or(corev1.PodPhase(p.Phase), corev1.PodRunning)
	if p.Terminating {
		pod.DeletionTimestamp = &metav1.Time{Time: metav1.Unix(1, 0).UTC()}
	}
	return pod
}

// first is the pod's first address; empty if it has none.
func (p *Pod) first() string {
	if p.IP.IsValid() {
		return p.IP.String()
	}
	return ""
}

func (p *Pod) containerPorts() []corev1.ContainerPort {
	var list []corev1.ContainerPort
	for _, c := range p.Ports {
		list = append(list, corev1.ContainerPort{
			Name: c.Name, ContainerPort: int32(c.Port), Protocol: corev1.Protocol(c.Protocol),
		})
	}
	return list
}

// policies returns copies that say their kind, whatever the line says.
func (s *Step) policies() []*networkingv1.NetworkPolicy {
	var list []*networkingv1.NetworkPolicy
	for i := range s.Policies {
		p := s.Policies[i].DeepCopy()
		p.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}
		list = append(list, p)
	}
	return list
}
