// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/measure/control/listwatch"
)

// server is the real API server with a real etcd, as a process in a namespace of
// its own beside the node.
type server struct {
	cmd      *exec.Cmd
	lifeline io.Closer // the process ends when this closes
	ended    chan struct{}
	url      string
	file     string
	http     *http.Client
}

// startServer starts the program and returns when it is ready. Its state goes
// below dir.
func startServer(ctx context.Context, path string, host *lab.Endpoint, dir string) (_ *server, err error) {
	dir = filepath.Join(dir, "api")
	s := &server{ended: make(chan struct{}), url: fmt.Sprintf("https://%s", netip.AddrPortFrom(host.Addrs[0], apiPort)), file: filepath.Join(dir, "admin.kubeconfig")}
	s.cmd = exec.Command(path, "--dir="+dir, "--bind="+host.Addrs[0].String(), fmt.Sprintf("--port=%d", apiPort), "--lifeline", "--", "--service-cluster-ip-range=10.96.0.0/12")
	if s.lifeline, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting the API server: %w", err)
	}
	if err := host.NS.Start(s.cmd); err != nil {
		return nil, fmt.Errorf("starting the API server: %w", err)
	}
	go func() {
		_ = s.cmd.Wait() // it is ended from outside
		close(s.ended)
	}()
	if err := s.ready(ctx, filepath.Join(dir, "ready")); err != nil {
		return nil, errors.Join(err, s.close())
	}
	config, err := s.credentials()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.http = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return host.NS.Dial(ctx, network, addr)
	}}}
	return s, nil
}

func (s *server) ready(ctx context.Context, file string) error {
	limit := time.After(patience)
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return errors.New("waiting for the API server: it ended")
		case <-limit:
			return fmt.Errorf("waiting for the API server: not ready after %s", patience)
		case <-time.After(glance):
		}
	}
}

// credentials reads the certificates out of the kubeconfig.
func (s *server) credentials() (*tls.Config, error) {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's kubeconfig: %w", err)
	}
	var c struct {
		Clusters []struct {
			Cluster struct {
				Authority []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("reading the API server's kubeconfig: %w", err)
	}
	if len(c.Clusters) == 0 || len(c.Users) == 0 {
		return nil, errors.New("reading the API server's kubeconfig: it names no cluster or no user")
	}
	pair, err := tls.X509KeyPair(c.Users[0].User.Certificate, c.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's kubeconfig: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.Clusters[0].Cluster.Authority)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func (s *server) kubeconfig() string { return s.file }

// close ends the process; the state in its directory stays.
func (s *server) close() error {
	_ = s.lifeline.Close() // it may have ended by itself
	select {
	case <-s.ended:
		return nil
	case <-time.After(10 * time.Second):
	}
	_ = s.cmd.Process.Kill() // it may have ended just now
	<-s.ended
	return errors.New("ending the API server: it did not end with its lifeline")
}

// send makes one request and returns when it began.
func (s *server) send(ctx context.Context, method, path, contentType string, body any) (time.Time, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return time.Time{}, fmt.Errorf("encoding a request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(text))
	if err != nil {
		return time.Time{}, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Content-Type", contentType)
	start := time.Now()
	resp, err := s.http.Do(req)
	if err != nil {
		return start, fmt.Errorf("writing to the API server: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return start, fmt.Errorf("writing to the API server: %w", err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return start, fmt.Errorf("writing to the API server: %s %s: %s %.300s", method, path, resp.Status, answer)
	}
	return start, nil
}

const plain, merge = "application/json", "application/merge-patch+json"

// collection is the path under which objects of this kind are created.
func collection(o listwatch.Object) string {
	ns := "/namespaces/" + o.GetNamespace()
	switch o.(type) {
	case *corev1.Namespace:
		return "/api/v1/namespaces"
	case *corev1.Node:
		return "/api/v1/nodes"
	case *networkingv1.NetworkPolicy:
		return "/apis/networking.k8s.io/v1" + ns + "/networkpolicies"
	case *corev1.Service:
		return "/api/v1" + ns + "/services"
	}
	return "/api/v1" + ns + "/pods"
}

// create writes the object and then, as a kubelet does, the status; the change
// begins with the last of the two.
func (s *server) create(ctx context.Context, o listwatch.Object) (time.Time, error) {
	o.SetResourceVersion("")
	o.SetUID("")
	o.SetManagedFields(nil)
	start, err := s.send(ctx, http.MethodPost, collection(o), plain, o)
	if err != nil {
		return start, err
	}
	switch o.(type) {
	case *corev1.Pod, *corev1.Node:
		return s.send(ctx, http.MethodPut, collection(o)+"/"+o.GetName()+"/status", plain, o)
	}
	return start, nil
}

func (s *server) update(ctx context.Context, o listwatch.Object) (time.Time, error) {
	if p, ok := o.(*networkingv1.NetworkPolicy); ok {
		return s.send(ctx, http.MethodPut, collection(o)+"/"+o.GetName(), plain, p)
	}
	labels := map[string]any{"metadata": map[string]any{"labels": o.GetLabels()}}
	return s.send(ctx, http.MethodPatch, collection(o)+"/"+o.GetName(), merge, labels)
}

func (s *server) remove(ctx context.Context, o listwatch.Object) (time.Time, error) {
	now := int64(0) // at once, as a kubelet does that has stopped the containers
	return s.send(ctx, http.MethodDelete, collection(o)+"/"+o.GetName(), plain, &metav1.DeleteOptions{GracePeriodSeconds: &now})
}

// writers is how many requests are under way while a cluster is written.
const writers = 16

func (s *server) fill(ctx context.Context, sh shape, own []netip.Addr) error {
	objects := sh.objects(own)
	for i := range sh.services {
		app := i % sh.apps()
		objects = append(objects, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: sh.namespaceOf(app), Name: fmt.Sprintf("svc-%d", i)}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": fmt.Sprintf("app-%d", app)}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		}})
	}
	kind := ""
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, o := range objects {
		if next := fmt.Sprintf("%T", o); next != kind { // a pod needs its namespace
			if err := g.Wait(); err != nil {
				return err
			}
			kind = next
			g, running = errgroup.WithContext(ctx)
			g.SetLimit(writers)
		}
		g.Go(func() error {
			_, err := s.create(running, o)
			return err
		})
	}
	return g.Wait()
}
