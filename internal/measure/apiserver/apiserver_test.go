// SPDX-License-Identifier: Apache-2.0

//go:build linux

package apiserver

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/testkit/entry"
	"github.com/podwall/podwall/internal/testkit/kubeapi"
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
	s, err := Start(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
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
	transport := s.client.Transport.(*http.Transport).Clone()
	transport.DialContext = ns.Dial
	client := &http.Client{Transport: transport}
	for path, want := range map[string]string{
		"/api/v1/namespaces/ns1/pods/p":                             "10.0.0.1",
		"/apis/networking.k8s.io/v1/namespaces/ns1/networkpolicies": `"name":"np"`,
	} {
		resp, err := client.Get(url + path)
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
	if _, err := client.Get(url + "/readyz"); err == nil {
		t.Error("the server is still reached after the relay was closed")
	}
	if err := s.Apply(t.Context(), []byte("{apiVersion: v1, kind: Pod, metadata: {name: P, namespace: ns1}}")); err == nil {
		t.Error("an object that the server refuses is no error")
	}
}

func TestAServerThatDoesNotStartLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if _, err := Start(t.Context(), "/bin/false"); err == nil {
		t.Error("no error")
	}
	if left, err := filepath.Glob(os.TempDir() + "/*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
