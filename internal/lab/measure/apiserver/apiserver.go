// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package apiserver runs a real API server beside a measurement, fills it with
// objects and changes them, and lets nodes of any number of beds reach it. It
// starts the program that `make kubeapi` builds. It knows neither what is
// measured nor what the objects mean, and it is no part of what is measured: its
// clients are agents, kube-proxy and peers.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/netns"
)

const (
	port = 6443
	// services are the addresses of Services, of both families.
	services = "10.96.0.0/16,fd96::/112"
)

// Server is a running API server.
type Server struct {
	// Kubeconfig is a file with all rights, for clients that see the address.
	Kubeconfig string

	dir     string
	ns      *netns.NS
	own     bool // ns is the server's to close
	addr    netip.AddrPort
	running *kubeapi.Server
	client  *http.Client
}

// StartAlone starts the program in a namespace of its own, on the address of
// loopback that Relay brings into those of nodes. The rest is as with Start.
func StartAlone(ctx context.Context, program string) (*Server, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	s, err := Start(ctx, program, ns, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	s.own = true
	return s, nil
}

// Start starts the program in a namespace, on an address of it that all clients
// reach, and returns when it is ready. The caller must Close the server before
// the namespace; the program ends with this process too.
func Start(ctx context.Context, program string, ns *netns.NS, addr netip.Addr) (_ *Server, err error) {
	s := &Server{ns: ns, addr: netip.AddrPortFrom(addr, port)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting the API server: %w", err), s.Close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "podwall-api-"); err != nil {
		return nil, err
	}
	s.running, err = kubeapi.Launch(ctx, s.dir, kubeapi.Options{Program: program, Netns: ns, Bind: addr, Port: port,
		Flags: []string{"--service-cluster-ip-range=" + services}})
	if err != nil {
		return nil, err
	}
	s.Kubeconfig = s.running.Kubeconfig
	config, err := s.running.RESTConfig()
	if err != nil {
		return nil, err
	}
	s.client, err = rest.HTTPClientFor(config)
	return s, err
}

// Close ends the server and removes what it kept.
func (s *Server) Close() error {
	var errs []error
	if s.client != nil {
		utilnet.CloseIdleConnectionsFor(s.client.Transport)
	}
	if s.running != nil {
		errs = append(errs, s.running.Stop())
	}
	if s.own {
		errs = append(errs, s.ns.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
