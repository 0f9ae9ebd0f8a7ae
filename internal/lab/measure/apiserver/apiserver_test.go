// SPDX-License-Identifier: Apache-2.0

//go:build linux

package apiserver

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Main(m) }

func program(t *testing.T) string {
	t.Helper()
	p, err := kubeapi.Program()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func alone(t *testing.T) *Server {
	t.Helper()
	s, err := StartAlone(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const objects = `apiVersion: v1
kind: Pod
metadata: {name: p, namespace: ns1, labels: {a: b}}
spec: {nodeName: node1, containers: [{name: c, image: c}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np, namespace: ns1}, spec: {podSelector: {}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ns1}}
`

func TestObjectsCanBeReadThroughARelay(t *testing.T) {
	s := alone(t)
	if err := s.Apply(t.Context(), []byte(objects)); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	relay, err := s.Relay(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	config, err := s.running.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.Dial = ns.Dial
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/api/v1/namespaces/ns1/pods/p":                             "10.0.0.1",
		"/apis/networking.k8s.io/v1/namespaces/ns1/networkpolicies": `"name":"np"`,
	} {
		resp, err := client.Get(s.running.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := resp.Write(&text); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s: %s, want %s", path, text.String(), want)
		}
	}
	if err := relay.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(s.running.URL + "/readyz"); err == nil {
		t.Error("the server is still reached after the relay was closed")
	}
	if err := s.Apply(t.Context(), []byte("{apiVersion: v1, kind: Pod, metadata: {name: P, namespace: ns1}}")); err == nil {
		t.Error("an object that the server refuses is no error")
	}
}

// read returns an object as the server has it.
func read(t *testing.T, s *Server, path string) string {
	t.Helper()
	resp, err := s.client.Get(s.running.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestObjectsOfGoTypesAreWrittenChangedAndRemoved(t *testing.T) {
	s := alone(t)
	in := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	pod := &corev1.Pod{ObjectMeta: in("p"), Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}}}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: in("np")}
	err := s.Fill(t.Context(), []metav1.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, // the server makes it too
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.2"}}}},
		pod, policy,
		&discoveryv1.EndpointSlice{ObjectMeta: in("s"), AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.3"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy.Spec.PodSelector.MatchLabels = map[string]string{"app": "fresh"}
	pod.Labels = map[string]string{"app": "other"}
	_, replaced := s.Replace(t.Context(), policy)
	_, relabelled := s.Relabel(t.Context(), pod)
	if err := errors.Join(replaced, relabelled); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/api/v1/nodes/n":                                                  "10.0.0.2",
		"/api/v1/namespaces/default/pods/p":                                "10.0.0.1",
		"/api/v1/namespaces/default/pods?labelSelector=app%3Dother":        `"name":"p"`,
		"/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/np": "fresh",
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s":    "10.0.0.3",
	} {
		if got := read(t, s, path); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if _, err := s.Remove(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, "/api/v1/namespaces/default/pods/p"); !strings.Contains(got, `"NotFound"`) {
		t.Errorf("the pod is still there: %s", got)
	}
	if _, err := s.Create(t.Context(), policy); err == nil {
		t.Error("an object that is there already is no error")
	}
}

func TestAServerThatDoesNotStartLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if _, err := StartAlone(t.Context(), "/bin/false"); err == nil {
		t.Error("no error")
	}
	if left, err := filepath.Glob(os.TempDir() + "/*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
