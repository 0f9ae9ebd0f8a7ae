// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package apiserver runs a real API server beside a measurement, in a network
// namespace of its own, fills it with objects, and lets nodes of any number of
// beds reach it at one address. It starts the program that `make kubeapi`
// builds. It knows neither what is measured nor what the objects mean, and it is
// no part of what is measured: its clients are kube-proxy and peers.
package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/lab/netns"
)

const (
	// address is where the server listens, in its own namespace and by Relay in
	// those of nodes; the server's certificate and kubeconfig name it.
	address  = "127.0.0.1:6443"
	url      = "https://" + address
	patience = 2 * time.Minute
	glance   = 20 * time.Millisecond
	grace    = 10 * time.Second
	writers  = 8 // objects that are written at the same time
)

// Server is a running API server.
type Server struct {
	// Kubeconfig is a file with all rights, for clients that see the address.
	Kubeconfig string

	dir      string
	ns       *netns.NS
	lifeline io.Closer
	process  *os.Process
	ended    chan struct{}
	client   *http.Client
}

// Start starts the program and returns when it is ready. The caller must Close
// the server; it ends with this process too.
func Start(ctx context.Context, program string) (s *Server, err error) {
	s = &Server{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting the API server: %w", err), s.Close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "podwall-api-"); err != nil {
		return s, err
	}
	s.Kubeconfig = filepath.Join(s.dir, "admin.kubeconfig")
	if s.ns, err = netns.New(); err != nil {
		return s, err
	}
	if err := s.launch(program); err != nil {
		return s, err
	}
	if err := s.await(ctx); err != nil {
		return s, err
	}
	s.client, err = s.newClient()
	return s, err
}

func (s *Server) launch(program string) error {
	log, err := os.Create(s.logFile())
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	cmd := exec.Command(program, "--dir="+s.dir, "--bind=127.0.0.1", "--port=6443", "--profile=min", "--lifeline",
		"--", "--service-cluster-ip-range=10.96.0.0/16,fd96::/112")
	cmd.Stdout, cmd.Stderr = log, log
	if s.lifeline, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.ns.Do(cmd.Start); err != nil {
		return err
	}
	s.process, s.ended = cmd.Process, make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended says nothing: it is ended from outside
		close(s.ended)
	}()
	return nil
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "kubeapi.log") }

// await returns when the program says that it is ready, which it does by a file.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err := os.Stat(filepath.Join(s.dir, "ready")); err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended before it was ready\n%s", s.tail())
		case <-ctx.Done():
			return fmt.Errorf("%w\n%s", ctx.Err(), s.tail())
		case <-time.After(glance):
		}
	}
}

func (s *Server) tail() string {
	const size = 2000
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-size):])
}

// newClient speaks with the rights of the kubeconfig, from inside the server's
// namespace.
func (s *Server) newClient() (*http.Client, error) {
	text, err := os.ReadFile(s.Kubeconfig)
	if err != nil {
		return nil, err
	}
	var file struct {
		Clusters []struct {
			Cluster struct {
				CA []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil || len(file.Clusters) == 0 || len(file.Users) == 0 {
		return nil, fmt.Errorf("reading the kubeconfig: no cluster or user in it (%v)", err)
	}
	cert, err := tls.X509KeyPair(file.Users[0].User.Cert, file.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(file.Clusters[0].Cluster.CA)
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		MaxIdleConnsPerHost: writers,
		TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots},
		DialContext:         s.ns.Dial,
	}}, nil
}

// object is what writing one needs to know of it.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Status json.RawMessage `json:"status"`
	// whole is the text.
	whole []byte
}

// Apply creates the objects of a text of YAML documents, in no order but that
// namespaces come first, and gives them the status that they have there.
func (s *Server) Apply(ctx context.Context, manifests []byte) error {
	var first, rest []object
	for _, text := range strings.Split(string(manifests), "---\n") {
		o := object{}
		whole, err := yaml.YAMLToJSON([]byte(text))
		if err == nil {
			err = json.Unmarshal(whole, &o)
		}
		if err != nil {
			return fmt.Errorf("reading an object: %w", err)
		}
		o.whole = whole
		if o.Kind == "Namespace" {
			first = append(first, o)
		} else {
			rest = append(rest, o)
		}
	}
	for _, list := range [][]object{first, rest} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(writers)
		for _, o := range list {
			g.Go(func() error { return s.create(ctx, o) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// create writes an object, and then its status: a creation drops that.
func (s *Server) create(ctx context.Context, o object) error {
	if err := s.send(ctx, http.MethodPost, o.path(), "application/json", o.whole); err != nil {
		return err
	}
	if o.Status == nil {
		return nil
	}
	status := append(append([]byte(`{"status":`), o.Status...), '}')
	return s.send(ctx, http.MethodPatch, o.path()+"/"+o.Metadata.Name+"/status", "application/merge-patch+json", status)
}

// path is where objects of the kind are created.
func (o object) path() string {
	path := "/apis/" + o.APIVersion
	if !strings.Contains(o.APIVersion, "/") {
		path = "/api/" + o.APIVersion
	}
	if o.Metadata.Namespace != "" {
		path += "/namespaces/" + o.Metadata.Namespace
	}
	plural := strings.ToLower(o.Kind) + "s"
	if strings.HasSuffix(plural, "ys") {
		plural = strings.TrimSuffix(plural, "ys") + "ies"
	}
	return path + "/" + plural
}

func (s *Server) send(ctx context.Context, method, path, kind string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the API server: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s", method, path, text)
	}
	return err
}

// Close ends the server and removes what it kept.
func (s *Server) Close() error {
	var errs []error
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	if s.ended != nil {
		errs = append(errs, s.lifeline.Close())
		select {
		case <-s.ended:
		case <-time.After(grace):
			errs = append(errs, errors.New("the API server did not end by itself"), s.process.Kill())
			<-s.ended
		}
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
