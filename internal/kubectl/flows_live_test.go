// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Who may not create pods/exec in the agents' namespace is told so, and sees no flow. How agents answer
// on a whole cluster is in test/cluster.
func TestFlowsNeedTheRightOfOperators(t *testing.T) {
	s := liveServer(t)
	config, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	ask := func() (int, string) {
		status, out, said := command(t, "flows", "-n", "shop", "--kubeconfig", tenant)
		if out != "" {
			t.Errorf("the tenant sees %q", out)
		}
		return status, strings.Join(strings.Fields(said), " ")
	}
	if status, said := ask(); status != statusUsage || !strings.Contains(said, "cannot list resource \"pods\"") {
		t.Errorf("without any right: exit status %d, %s", status, said)
	}
	listPods(t, clients)
	said := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && !strings.Contains(said, "no agent runs"); {
		_, said = ask() // the API server learns of a right by a watch of its own
	}
	if !strings.Contains(said, "no agent runs: no pod has the label app.kubernetes.io/name=podwall") {
		t.Errorf("without an agent: %s", said)
	}
	agentOn(t, clients, "node1")
	if status, said := ask(); status != statusUsage ||
		!strings.Contains(said, "node node1 does not answer: no right to create pods/exec in shop") {
		t.Errorf("without the right to exec: exit status %d, %s", status, said)
	}
}

func listPods(t *testing.T, clients kubernetes.Interface) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "list-pods"}
	_, err := clients.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta,
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = clients.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta,
		RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: meta.Name}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "tenant"}}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// agentOn makes a pod that looks as an agent's does.
func agentOn(t *testing.T, clients kubernetes.Interface, node string) {
	t.Helper()
	pods := clients.CoreV1().Pods("shop")
	p, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "podwall-x",
		Labels: map[string]string{"app.kubernetes.io/name": "podwall"}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "agent", Image: "podwall"}}}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "agent", Image: "podwall", ImageID: "podwall",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
