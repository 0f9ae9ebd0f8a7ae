// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/lab"
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

// process is a stand-in in a node.
type process struct {
	*testing.T
	cmd   *exec.Cmd
	log   string // file name
	ended chan struct{}
	err   error // how it ended; valid after ended is closed
}

// start starts one, which ends with the test. The thread stays until the process
// ends: the kernel takes the end of the thread for that of the parent.
func start(t *testing.T, node *lab.Endpoint, env ...string) *process {
	t.Helper()
	p := &process{T: t, cmd: exec.Command(os.Args[0]), log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own descriptor
	p.cmd.Env = append(append(os.Environ(), itself+"=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 2)
	go func() {
		defer close(p.ended)
		p.err = node.NS.Do(func() error {
			err := p.cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return p.cmd.Wait()
		})
		started <- p.err // only the first value is read: it was not even started
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
	})
	return p
}

// awaitRules returns when it says that its rules are written.
func (p *process) awaitRules() *process {
	p.Helper()
	const tries, pause = 1000, 20 * time.Millisecond
	for range tries {
		if strings.Contains(p.said(), written) {
			return p
		}
		select {
		case <-p.ended:
			p.Fatalf("it ended before its rules were written: %v\n%s", p.err, p.said())
		case <-time.After(pause):
		}
	}
	p.Fatalf("its rules are not written\n%s", p.said())
	return nil
}

// stop asks it to end, as benchmarks do.
func (p *process) stop() {
	p.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
	<-p.ended
	if p.err != nil {
		p.Fatalf("it ended badly: %v\n%s", p.err, p.said())
	}
}

func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}
