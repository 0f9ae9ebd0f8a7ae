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

	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
)

// Who may not create pods/exec in the agents' namespace is told so, and sees no flow. How agents answer
// on a whole cluster is in test/cluster.
func TestFlowsNeedTheRightOfOperators(t *testing.T) {
	s := liveServer(t)
	clients := adminOf(t, s)
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	ask := func() (int, string) {
		status, out, said := commandLine(t, "flows", "-n", "shop", "--kubeconfig", tenant)
		if out != "" {
			t.Errorf("the tenant sees %q", out)
		}
		return status, strings.Join(strings.Fields(said), " ")
	}
	if status, said := ask(); status != statusUsage || !strings.Contains(said, "cannot list resource \"pods\"") {
		t.Errorf("without any right: exit status %d, %s", status, said)
	}
	// A tenant's pod that looks as an agent's does is not asked, nor is a pod of no DaemonSet.
	namespace(t, clients, agentsNamespace)
	agentOn(t, clients, "shop", "podwall-x", "DaemonSet")
	agentOn(t, clients, agentsNamespace, "podwall-y", "ReplicaSet")
	listPods(t, clients, agentsNamespace)
	said := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && !strings.Contains(said, "no agent runs"); {
		_, said = ask() // the API server learns of a right by a watch of its own
	}
	if !strings.Contains(said, "no agent runs in the namespace podwall-system: no pod of a DaemonSet has the label "+
		"app.kubernetes.io/name=podwall there; name the namespace of podwall with --agents-namespace") {
		t.Errorf("without an agent: %s", said)
	}
	agentOn(t, clients, agentsNamespace, "podwall-z", "DaemonSet")
	status, said := ask()
	if status != statusUsage || strings.Contains(said, "podwall-x") || strings.Contains(said, "podwall-y") ||
		!strings.Contains(said, "node podwall-z-node does not answer: no right to create pods/exec in podwall-system") {
		t.Errorf("without the right to exec: exit status %d, %s", status, said)
	}
}

func namespace(t *testing.T, clients kubernetes.Interface, name string) {
	t.Helper()
	_, err := clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// listPods lets the tenant list the pods of a namespace.
func listPods(t *testing.T, clients kubernetes.Interface, namespace string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "list-pods"}
	rule := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}
	_, err := clients.RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta,
		Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = clients.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef: rbacv1.RoleRef{Kind: "Role", Name: meta.Name}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "tenant"}}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubeapitest.AwaitRights(t, clients, "tenant", namespace, rule)
}

// agentOn makes a pod that looks as an agent's does, of a node of its own.
func agentOn(t *testing.T, clients kubernetes.Interface, namespace, name, owner string) {
	t.Helper()
	agentAt(t, clients, namespace, name, owner, name+"-node")
}

// agentAt makes a pod that looks as the agent of a node does.
func agentAt(t *testing.T, clients kubernetes.Interface, namespace, name, owner, node string) {
	t.Helper()
	controller := true
	pods := clients.CoreV1().Pods(namespace)
	p, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name,
		Labels: map[string]string{"app.kubernetes.io/name": "podwall"}, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: owner, Name: "podwall", UID: "1", Controller: &controller}}},
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
