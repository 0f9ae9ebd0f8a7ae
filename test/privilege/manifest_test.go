// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// What an operator applies: as it is, and with the start gate.
const (
	manifestFile = root + "/deploy/podwall.yaml"
	gateFile     = "testdata/gate.yaml"
)

// manifest is what of it these tests are about.
type manifest struct {
	account corev1.ServiceAccount
	role    rbacv1.ClusterRole
	binding rbacv1.ClusterRoleBinding
	pod     corev1.PodSpec
}

func readManifest(t *testing.T, file string) manifest {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	var m manifest
	var set appsv1.DaemonSet
	kinds := map[string]any{"ServiceAccount": &m.account, "ClusterRole": &m.role, "ClusterRoleBinding": &m.binding, "DaemonSet": &set}
	for doc := range strings.SplitSeq("\n"+string(text), "\n---\n") {
		var is metav1.TypeMeta
		check(t, yaml.Unmarshal([]byte(doc), &is))
		if into, ok := kinds[is.Kind]; ok {
			check(t, yaml.UnmarshalStrict([]byte(doc), into))
			delete(kinds, is.Kind)
		}
	}
	if len(kinds) > 0 {
		t.Fatalf("%s lacks %d kinds of objects: %v", file, len(kinds), kinds)
	}
	m.pod = set.Spec.Template.Spec
	return m
}

// container returns one of the pod's containers.
func container(t *testing.T, pod *corev1.PodSpec, name string) *corev1.Container {
	t.Helper()
	i := slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("the manifest has no container %s", name)
	}
	return &pod.Containers[i]
}

// unmount takes a mount of a container away.
func unmount(t *testing.T, pod *corev1.PodSpec, from, volume string) {
	t.Helper()
	c := container(t, pod, from)
	before := len(c.VolumeMounts)
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
	if len(c.VolumeMounts) == before {
		t.Fatalf("the container %s has no mount %s", from, volume)
	}
}

// rights returns the capabilities that a container is given. The manifest must drop
// all others, and say the rest of what makes a container weak.
func rights(t *testing.T, pod *corev1.PodSpec, c *corev1.Container) []string {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Fatalf("container %s does not drop all capabilities", c.Name)
	}
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	if !is(s.Privileged, false) || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || pod.HostPID ||
		pod.HostIPC {
		t.Errorf("container %s could do more than it must: %+v", c.Name, s)
	}
	if p := pod.SecurityContext; p == nil || p.SeccompProfile == nil || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's seccomp profile is not the runtime's")
	}
	var list []string
	for _, name := range s.Capabilities.Add {
		list = append(list, "CAP_"+string(name))
	}
	return list
}
