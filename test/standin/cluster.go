// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// pod is one that policies know: running, not on the host network, with an IPv4
// address.
type pod struct {
	namespace, name, node string
	labels                labels.Set
	addr                  netip.Addr
}

// objects are what the rules are made of.
type objects struct {
	namespaces map[string]labels.Set
	pods       []pod
	policies   []networkingv1.NetworkPolicy
}

// list reads the cluster once.
func list(ctx context.Context, kubeconfig string) (c objects, err error) {
	a, err := connect(kubeconfig)
	if err != nil {
		return c, err
	}
	defer a.client.CloseIdleConnections()
	var namespaces corev1.NamespaceList
	var pods corev1.PodList
	var policies networkingv1.NetworkPolicyList
	for path, into := range map[string]any{"/api/v1/namespaces": &namespaces, "/api/v1/pods": &pods,
		"/apis/networking.k8s.io/v1/networkpolicies": &policies} {
		if err := a.get(ctx, path, into); err != nil {
			return c, err
		}
	}
	return newObjects(namespaces.Items, pods.Items, policies.Items), nil
}

func newObjects(namespaces []corev1.Namespace, pods []corev1.Pod, policies []networkingv1.NetworkPolicy) objects {
	c := objects{namespaces: map[string]labels.Set{}, policies: policies}
	for _, n := range namespaces {
		c.namespaces[n.Name] = n.Labels
	}
	for _, p := range pods {
		finished := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if addr := v4(p.Status); addr.IsValid() && !p.Spec.HostNetwork && !finished {
			c.pods = append(c.pods, pod{p.Namespace, p.Name, p.Spec.NodeName, p.Labels, addr})
		}
	}
	return c
}

func v4(s corev1.PodStatus) netip.Addr {
	for _, ip := range s.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// api is an API server.
type api struct {
	client *http.Client
	server string
}

// connect reads a kubeconfig of the form that the benchmark writes: one cluster,
// one user with a client certificate, all of it in the file.
func connect(kubeconfig string) (a api, err error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return a, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	var file struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil || len(file.Clusters) != 1 || len(file.Users) != 1 {
		//nolint:errorlint // err may be nil
		return a, fmt.Errorf("reading the kubeconfig: want one cluster and one user (%v)", err)
	}
	cert, err := tls.X509KeyPair(file.Users[0].User.Cert, file.Users[0].User.Key)
	if err != nil {
		return a, fmt.Errorf("reading the kubeconfig's client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(file.Clusters[0].Cluster.CA)
	// No proxy: a lab node reaches nobody else.
	a.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{
		cert}, RootCAs: roots}}}
	a.server = file.Clusters[0].Cluster.Server
	return a, nil
}

func (a api) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+path, nil)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("getting %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}
