// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"os"
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

// A bundle needs four lists and no other right, and nothing of Secrets, ConfigMaps, the environment of pods
// and the kubeconfig is in it.
func TestABundleHasNoSecrets(t *testing.T) {
	const secret = "correct-horse-battery"
	s := liveServer(t)
	clients := adminOf(t, s)
	namespace(t, clients, agentsNamespace)
	agentOn(t, clients, agentsNamespace, "podwall-z", "DaemonSet")
	hide(t, clients, secret)
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	lists(t, clients, "pods", "namespaces", "nodes", "networkpolicies")
	ask := func() (int, string, string) {
		return commandLine(t, "bundle", "-o", "-", "--kubeconfig", tenant)
	}
	const missing = "error: node podwall-z-node: status: no right to create pods/exec in podwall-system"
	var status int
	var packed, said string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if status, packed, said = ask(); !strings.Contains(said, "no right to list") && status != statusUsage {
			break // the API server has learnt of the rights
		}
	}
	if said = strings.ReplaceAll(said, "\n  ", " "); status != statusNotWritten || !strings.Contains(said, missing) {
		t.Fatalf("exit status %d, want %q:\n%s", status, missing, said)
	}
	files := unpack(t, []byte(packed))
	r := reportOf(t, files)
	if r.Objects["pods"] != 6 || r.Objects["networkpolicies"] != 2 || r.Objects["nodes"] != 2 || r.Objects["namespaces"] < 3 {
		t.Errorf("%+v", r.Objects)
	}
	if strings.Contains(said, "secrets") || strings.Contains(said, "configmaps") {
		t.Errorf("it asks for more than it needs:\n%s", said)
	}
	key, err := os.ReadFile(filepath.Join(filepath.Dir(tenant), "tenant.key"))
	if err != nil {
		t.Fatal(err)
	}
	credentials := strings.Split(string(key), "\n")[1] // a line of the text
	if len(credentials) < 60 {
		t.Fatalf("the key begins with %q", credentials)
	}
	for name, text := range files {
		if strings.Contains(text, secret) || strings.Contains(text, credentials) {
			t.Errorf("%s has a secret:\n%s", name, text)
		}
	}
	if !strings.Contains(files["objects/pods.json"], `"name": "hidden"`) {
		t.Error("the pod with the secret is not in the bundle")
	}
}

// hide puts a text where bundles must not look.
func hide(t *testing.T, clients kubernetes.Interface, secret string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "hidden", Annotations: map[string]string{"note": secret}}
	_, err := clients.CoreV1().Secrets("shop").Create(t.Context(), &corev1.Secret{ObjectMeta: meta,
		StringData: map[string]string{"a": secret}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = clients.CoreV1().ConfigMaps("shop").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta,
		Data: map[string]string{"a": secret}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	container := corev1.Container{Name: "c", Image: secret, Command: []string{secret}, Args: []string{secret}, WorkingDir: "/" + secret,
		Env: []corev1.EnvVar{{Name: "A", Value: secret}}, Ports: []corev1.ContainerPort{{ContainerPort: 80}}}
	init := container
	init.Name, init.Ports = "i", nil
	_, err = clients.CoreV1().Pods("shop").Create(t.Context(), &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
		NodeName: "node1", Containers: []corev1.Container{container}, InitContainers: []corev1.Container{init}}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// lists lets the tenant list these resources of all namespaces.
func lists(t *testing.T, clients kubernetes.Interface, resources ...string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "lists"}
	var rules []rbacv1.PolicyRule
	for _, r := range resources {
		group := map[string]string{"networkpolicies": "networking.k8s.io"}[r]
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{r}, Verbs: []string{"list"}})
	}
	_, err := clients.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules},
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
	kubeapitest.AwaitRights(t, clients, "tenant", "", rules...)
}
