// SPDX-License-Identifier: Apache-2.0

package kubeapi_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
)

func TestObjectsAreStoredAndNothingRemainsAfterStop(t *testing.T) {
	server := kubeapitest.Start(t)
	client := clientOf(t, server)
	createNamespace(t, client, "shop")
	createPod(t, client, "shop", "web", "10.244.1.5")
	createPolicy(t, client, "shop", "deny-all")

	want := []string{"shop/web 10.244.1.5 Running", "shop/deny-all"}
	if diff := cmp.Diff(want, listed(t, client)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}

	gone := watchEnd(t, server.Pid())
	if err := server.Stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	gone()
	if err := server.Stop(); err != nil {
		t.Errorf("stopping once more: %v", err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "https://"))
	if err == nil {
		conn.Close()
		t.Errorf("%s still answers after the stop", server.URL)
	}
}

func TestSecondStartInTheSameDirectoryGoesOn(t *testing.T) {
	first := kubeapitest.Start(t)
	client := clientOf(t, first)
	createNamespace(t, client, "shop")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}

	port := portOf(t, first)
	second, err := kubeapi.Launch(t.Context(), dirOf(first), kubeapi.Options{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Stop()
	// The client of the first start: same port, same authority.
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{}); err != nil {
		t.Errorf("reading what the first start stored: %v", err)
	}
}

func TestFullProfileHasRBAC(t *testing.T) {
	server := kubeapitest.StartWith(t, kubeapi.Options{Profile: kubeapi.Full})
	roles, err := clientOf(t, server).RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(roles.Items) == 0 {
		t.Errorf("got %d cluster roles and error %v, want the built-in ones", len(roles.Items), err)
	}
}

func TestStartThatFailsShowsTheLog(t *testing.T) {
	if _, err := kubeapi.Program(); errors.Is(err, kubeapi.ErrNotBuilt) {
		kubeapitest.Start(t) // skips or fails
	}
	_, err := kubeapi.Launch(t.Context(), t.TempDir(), kubeapi.Options{Flags: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("got error %v, want one that shows the log line about the flag", err)
	}
}

func TestWrongPathInTheEnvironmentIsNotASkip(t *testing.T) {
	t.Setenv(kubeapi.ProgramEnv, t.TempDir()+"/nothing")
	_, err := kubeapi.Launch(t.Context(), t.TempDir(), kubeapi.Options{})
	if !errors.Is(err, os.ErrNotExist) || errors.Is(err, kubeapi.ErrNotBuilt) {
		t.Errorf("got error %v, want that the file does not exist", err)
	}
}

func clientOf(t *testing.T, s *kubeapi.Server) kubernetes.Interface {
	t.Helper()
	config, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func createNamespace(t *testing.T, c kubernetes.Interface, name string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// createPod needs two writes, as in a real cluster: creation drops the status.
func createPod(t *testing.T, c kubernetes.Interface, namespace, name, ip string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	pod, err := c.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
	if _, err := c.CoreV1().Pods(namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func createPolicy(t *testing.T, c kubernetes.Interface, namespace, name string) {
	t.Helper()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// listed returns one line for each pod and policy of the cluster.
func listed(t *testing.T, c kubernetes.Interface) []string {
	t.Helper()
	pods, err := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	policies, err := c.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range pods.Items {
		lines = append(lines, p.Namespace+"/"+p.Name+" "+p.Status.PodIP+" "+string(p.Status.Phase))
	}
	for _, p := range policies.Items {
		lines = append(lines, p.Namespace+"/"+p.Name)
	}
	return lines
}
