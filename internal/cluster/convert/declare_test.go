// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// A name may stand in any container that can listen, more than once, and for
// several protocols. The API refuses ports of ephemeral containers; stored all
// the same they open nothing.
func TestWhichContainersDeclareNamedPorts(t *testing.T) {
	port := func(name string, number int32, protocol corev1.Protocol) []corev1.ContainerPort {
		return []corev1.ContainerPort{{Name: name, ContainerPort: number, Protocol: protocol}}
	}
	always := corev1.ContainerRestartPolicyAlways
	tcp80 := cluster.NamedPort{Name: "http", Protocol: cluster.TCP, Port: 80}
	tests := []struct {
		name string
		spec corev1.PodSpec
		want []cluster.NamedPort
	}{
		{"a container", corev1.PodSpec{Containers: []corev1.Container{{Ports: port("http", 80, "TCP")}}},
			[]cluster.NamedPort{tcp80}},
		{"an init container", corev1.PodSpec{InitContainers: []corev1.Container{{Ports: port("http", 80, "TCP")}}},
			[]cluster.NamedPort{tcp80}},
		{"a sidecar", corev1.PodSpec{InitContainers: []corev1.Container{{RestartPolicy: &always,
			Ports: port("http", 80, "TCP")}}}, []cluster.NamedPort{tcp80}},
		{"an ephemeral container", corev1.PodSpec{EphemeralContainers: []corev1.EphemeralContainer{
			{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Ports: port("http", 80, "TCP")}}}}, nil},
		{"two containers, one number", corev1.PodSpec{Containers: []corev1.Container{{Ports: port("http", 80, "")},
			{Ports: port("http", 80, "TCP")}}},
			[]cluster.NamedPort{tcp80}},
		{"two containers, two numbers", corev1.PodSpec{Containers: []corev1.Container{{Ports: port("http", 80, "TCP")},
			{Ports: port("http", 8080, "TCP")}}},
			[]cluster.NamedPort{tcp80, {Name: "http", Protocol: cluster.TCP, Port: 8080}}},
		{"one name, two protocols", corev1.PodSpec{Containers: []corev1.Container{{Ports: append(port("http", 80,
			"TCP"), port("http", 80, "UDP")...)}}},
			[]cluster.NamedPort{tcp80, {Name: "http", Protocol: cluster.UDP, Port: 80}}},
		{"a container and a sidecar", corev1.PodSpec{Containers: []corev1.Container{{Ports: port("http", 80, "TCP")}},
			InitContainers: []corev1.Container{{RestartPolicy: &always, Ports: port("http", 15001, "SCTP")}}},
			[]cluster.NamedPort{tcp80, {Name: "http", Protocol: cluster.SCTP, Port: 15001}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Pod(&corev1.Pod{Spec: tt.spec}).NamedPorts()); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
}

// The API shows a static pod as a mirror pod: marked by an annotation, owned by
// its node, without a service account. Policies do not ask about any of it.
func TestAMirrorPodIsAPodLikeAnyOther(t *testing.T) {
	plain := apiPod(7)
	mirror := plain.DeepCopy()
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "0123456789abcdef",
		"kubernetes.io/config.source": "file"}
	mirror.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: plain.Spec.NodeName,
		UID: "n"}}
	mirror.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	mirror.Spec.PriorityClassName = "system-node-critical"
	want, got := Pod(plain), Pod(mirror)
	want.UID = "0123456789abcdef" // as the runtime knows it
	if !got.Networked() || !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
