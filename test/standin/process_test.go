// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/process"
)

// serve answers as an API server would, in a node, until the test ends. It
// returns the name of a kubeconfig. That the real server is understood too is
// seen by the benchmarks.
func serve(t *testing.T, node *lab.Endpoint, pods []corev1.Pod, policies []networkingv1.NetworkPolicy) string {
	t.Helper()
	l, err := node.NS.Listen(t.Context(), "tcp", "127.0.0.1:6443")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, list := range map[string]any{"/api/v1/namespaces": corev1.NamespaceList{}, "/api/v1/pods": corev1.PodList{Items: pods},
		"/apis/networking.k8s.io/v1/networkpolicies": networkingv1.NetworkPolicyList{Items: policies}} {
		mux.HandleFunc("GET "+path, func(rw http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(rw).Encode(list); err != nil {
				t.Error(err)
			}
		})
	}
	s := httptest.NewUnstartedServer(mux)
	_ = s.Listener.Close() // that of the test's own namespace
	s.Listener = l
	s.StartTLS()
	t.Cleanup(s.Close)
	return writeKubeconfig(t, s)
}

// writeKubeconfig lets the server's own certificate be the client's too.
func writeKubeconfig(t *testing.T, s *httptest.Server) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	type object map[string]any
	text, err := json.Marshal(object{
		"clusters": []object{{"cluster": object{"server": s.URL, "certificate-authority-data": cert}}},
		"users": []object{{"user": object{"client-certificate-data": cert,
			"client-key-data": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// standin is one in a node.
type standin struct {
	*process.Process
	t *testing.T
}

// start starts one, which ends with the test.
func start(t *testing.T, node *lab.Endpoint, env ...string) *standin {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), itself+"=1"), env...)
	p, err := process.Start(cmd, process.Options{Name: "the stand-in", Log: filepath.Join(t.TempDir(), "log"), NS: node.NS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return &standin{p, t}
}

// awaitRules returns when it says that its rules are written.
func (s *standin) awaitRules() *standin {
	s.t.Helper()
	w := process.Wait{For: "its rules", Limit: 20 * time.Second, Pause: 20 * time.Millisecond}
	err := w.Until(s.t.Context(), func(context.Context) (bool, error) {
		text, err := s.Log()
		return bytes.Contains(text, []byte(written)), err
	}, s.Process)
	if err != nil {
		s.t.Fatal(err)
	}
	return s
}

// stop asks it to end, as benchmarks do.
func (s *standin) stop() {
	s.t.Helper()
	if err := errors.Join(process.Lives(s.Process), s.Stop(), s.Err()); err != nil {
		s.t.Fatalf("it ended badly: %v\n%s", err, s.Tail())
	}
}
