// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
)

// playKubelet waits for the next probe in a pod, and ends it with a message as a kubelet does. The returned
// function waits until that is done, and returns the container.
func playKubelet(t *testing.T, clients kubernetes.Interface, key cluster.Key, message string) func() corev1.EphemeralContainer {
	t.Helper()
	pods := clients.CoreV1().Pods(key.Namespace)
	before, err := pods.Get(t.Context(), key.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan corev1.EphemeralContainer, 1)
	go func() {
		defer close(done)
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && t.Context().Err() == nil; time.Sleep(5 * time.Millisecond) {
			p, err := pods.Get(t.Context(), key.Name, metav1.GetOptions{})
			if err != nil || len(p.Spec.EphemeralContainers) == len(before.Spec.EphemeralContainers) {
				continue
			}
			c := p.Spec.EphemeralContainers[slices.IndexFunc(p.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool {
				known := func(b corev1.EphemeralContainer) bool { return b.Name == c.Name }
				return !slices.ContainsFunc(before.Spec.EphemeralContainers, known)
			})] // the API may put it anywhere
			p.Status.EphemeralContainerStatuses = append(p.Status.EphemeralContainerStatuses, corev1.ContainerStatus{Name: c.Name,
				Image: c.Image, ImageID: c.Image, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					Message: message, FinishedAt: metav1.Now()}}})
			if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
				continue
			} else if err != nil {
				t.Error(err)
			}
			done <- c
			return
		}
	}()
	return func() corev1.EphemeralContainer { return <-done }
}

func answersOf(list string) string {
	return `{"schema":"podwall.connect/v1","seconds":5,"answers":["` + strings.ReplaceAll(list, " ", `","`) + `"]}` + "\n"
}

// A question adds one container to the source pod, and its answers are compared with the explanation.
func TestAProbeInAPodOfACluster(t *testing.T) {
	s := liveServer(t)
	clients := adminOf(t, s)
	namespace(t, clients, agentsNamespace)
	agentAt(t, clients, agentsNamespace, "podwall-z", "DaemonSet", "node1")
	agentAt(t, clients, "shop", "podwall-x", "DaemonSet", "node2") // not podwall's: its image is not taken
	client := cluster.Key{Namespace: "shop", Name: "client"}
	tests := []struct {
		line, answers string
		status        int
		want          string
	}{
		{"svc/shop/web", "connected connected refused", 0, "probe: shop/client to shop/web-6bd7-x1, tcp 10.244.1.10:8080: connected: " +
			"the packet arrived, as explained probe: shop/client to Service shop/web, tcp 10.0.0.80:80: connected: the packet arrived, " +
			"as explained probe: shop/client to shop/web-6bd7-x2, tcp 10.244.2.10:8080: refused: the packet arrived, as explained"},
		{"shop/web-6bd7-x1:9090", "connected", statusNo, "connected: the packet arrived, NOT as explained"},
		{"shop/web-6bd7-x1:53/udp", "silent", statusNotWritten, "no answer in 5 s: unknown, a UDP server need not answer"},
		{"shop/web-6bd7-x1", "", statusUsage, `of pod shop/client says "": no answer of podwall-agent --connect: `},
		{"shop/web-6bd7-x1", "silent silent", statusUsage, "it has 2 answers to 1 questions; it may be cut where"},
	}
	for i, tt := range tests {
		message := answersOf(tt.answers)
		if tt.answers == "" {
			message = ""
		}
		added := playKubelet(t, clients, client, message)
		status, out, said := commandLine(t, "explain", "shop/client", tt.line, "--probe", "--ephemeral", "--probe-timeout=2m",
			"--kubeconfig", s.Kubeconfig)
		c := added()
		text := strings.Join(strings.Fields(out+said), " ")
		if status != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s: exit status %d, want %d and %q:\n%s%s", tt.line, status, tt.status, tt.want, out, said)
		}
		if !strings.Contains(text, "adding the ephemeral container "+c.Name+" to pod shop/client, with the image podwall: it stays") {
			t.Errorf("%s: it is not said what is done:\n%s", tt.line, said)
		}
		p, err := clients.CoreV1().Pods("shop").Get(t.Context(), "client", metav1.GetOptions{})
		if err != nil || len(p.Spec.EphemeralContainers) != i+1 || !strings.HasPrefix(c.Name, "podwall-probe-") {
			t.Errorf("%s: %v, %v", tt.line, p.Spec.EphemeralContainers, err)
		}
	}
	status, _, said := commandLine(t, "explain", "default/job", "192.0.2.7:443", "--probe", "--ephemeral", "--kubeconfig", s.Kubeconfig)
	if said = strings.ReplaceAll(said, "\n  ", " "); status != statusUsage || !strings.Contains(said, "no agent is known on node node2") {
		t.Errorf("without an agent: exit status %d, %s", status, said)
	}
	added := playKubelet(t, clients, cluster.Key{Namespace: "default", Name: "job"}, answersOf("silent"))
	status, out, said := commandLine(t, "explain", "default/job", "192.0.2.7:443", "--probe", "--ephemeral", "--probe-image=mine:1",
		"--probe-timeout=2m", "-o", "json", "--kubeconfig", s.Kubeconfig)
	c := added()
	var got flowReport
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != 0 || got.Probe.Container != c.Name || c.Image != "mine:1" ||
		got.Probe.Pod != "default/job" || got.Probe.Packets[0].Answer != "silent" || !got.Probe.Packets[0].Agrees {
		t.Errorf("exit status %d, %v\n%s%s", status, err, out, said)
	}
	if want := "podwall-agent --connect=tcp/192.0.2.7:443"; strings.Join(c.Command, " ") != want || c.Resources.Limits != nil ||
		len(c.VolumeMounts) > 0 {
		t.Errorf("the container is %+v, want %q", c, want)
	}
}

// The container is one that the strictest level of PodSecurity admits. A pod that does not meet its level
// any more gets none, and each missing right is named.
func TestWhoMayAddAProbe(t *testing.T) {
	s := liveServer(t)
	clients := adminOf(t, s)
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	grant(t, clients)
	restrict(t, clients)
	ask := func(source string) (int, string) {
		status, out, said := commandLine(t, "explain", "-n", "shop", source, "web", "--probe", "--ephemeral", "--probe-image=i",
			"--probe-timeout=2m", "--kubeconfig", tenant)
		return status, strings.Join(strings.Fields(out+said), " ")
	}
	if status, text := ask("good"); status != statusUsage || !strings.Contains(text, "no right to get pods in shop, which --probe needs") {
		t.Errorf("without get: exit status %d, %s", status, text)
	}
	rules := roleOfThePage(t)
	allow(t, clients, "reads", rules[0])
	if status, text := ask("good"); status != statusUsage || !strings.Contains(text,
		"no right to patch pods/ephemeralcontainers in shop: ask") {
		t.Errorf("without patch: exit status %d, %s", status, text)
	}
	allow(t, clients, "probes", rules[1])
	if status, text := ask("client"); status != statusUsage || !strings.Contains(text, "admission refuses the probe container in pod "+
		"shop/client: it asks for no right at all") || !strings.Contains(text, `violates PodSecurity "restricted:latest"`) {
		t.Errorf("in a pod that is not restricted: exit status %d, %s", status, text)
	}
	added := playKubelet(t, clients, cluster.Key{Namespace: "shop", Name: "good"}, answersOf("silent"))
	status, text := ask("good")
	if c := added(); status != statusNotWritten || !strings.Contains(text, "10.244.1.10:8080: no answer in 5 s: the packet was "+
		"dropped, as explained") || c.Name == "" { // other namespaces are not read, so the status is 3
		t.Errorf("with all rights: exit status %d, %s", status, text)
	}
	config, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	pods, err := podsOf(config)
	if err != nil {
		t.Fatal(err)
	}
	key := cluster.Key{Namespace: "shop", Name: "good"}
	err = pods.addContainer(t.Context(), key, types.UID("other"), probeContainer("i", nil))
	if err == nil || !strings.Contains(notAdded(key, err).Error(), "pod shop/good was replaced by another of this name meanwhile") {
		t.Errorf("a container for another pod of this name: %v", err)
	}
	terminate(t, clients, "good")
	if status, text := ask("good"); status != statusUsage || !strings.Contains(text,
		"pod shop/good is terminating, and starts no container") {
		t.Errorf("a terminating pod: exit status %d, %s", status, text)
	}
}

// roleOfThePage is the role that docs/kubectl.md has for probes: the right to get, and the one to patch.
func roleOfThePage(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	page, err := os.ReadFile("../../docs/kubectl.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```text\napiVersion: rbac")
	text, _, _ = strings.Cut("apiVersion: rbac"+text, "```")
	var role rbacv1.Role
	if err := yaml.UnmarshalStrict([]byte(text), &role); err != nil || len(role.Rules) != 2 || role.Kind != "Role" {
		t.Fatalf("the role of the page is %+v, %v", role, err)
	}
	return role.Rules
}

// allow gives the tenant a right in shop.
func allow(t *testing.T, clients kubernetes.Interface, name string, rule rbacv1.PolicyRule) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: name}
	_, err := clients.RbacV1().Roles("shop").Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = clients.RbacV1().RoleBindings("shop").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef: rbacv1.RoleRef{Kind: "Role", Name: name}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "tenant"}}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubeapitest.AwaitRights(t, clients, "tenant", "shop", rule)
}

// restrict puts the namespace shop under the strictest level, and makes a pod in it that meets it.
func restrict(t *testing.T, clients kubernetes.Interface) {
	t.Helper()
	yes, no, user := true, false, int64(1000)
	good := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "good", Labels: map[string]string{"app": "good"}},
		Spec: corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "c", Image: "x",
			SecurityContext: &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, AllowPrivilegeEscalation: &no,
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}}}}}
	pods := clients.CoreV1().Pods("shop")
	p, err := pods.Create(t.Context(), good, metav1.CreateOptions{})
	if err == nil {
		p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, "10.244.1.12", []corev1.PodIP{{IP: "10.244.1.12"}}
		_, err = pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	patch := `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`
	_, err = clients.CoreV1().Namespaces().Patch(t.Context(), "shop", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The API server learns of the label by a watch of its own.
	bad := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bad"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err := pods.Create(t.Context(), bad, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsForbidden(err) {
			return
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("a pod that is not restricted: %v", err)
		}
	}
}

// terminate deletes a pod, which stays as long as no kubelet says that it has ended.
func terminate(t *testing.T, clients kubernetes.Interface, name string) {
	t.Helper()
	grace := int64(3600)
	if err := clients.CoreV1().Pods("shop").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		t.Fatal(err)
	}
}
