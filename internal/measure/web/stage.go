// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/testkit/kubeapi"
)

// patience is how long anything may take that has to happen. Nobody waits for
// it when all is well.
const patience = 2 * time.Minute

// realNodes have a namespace; the others are names.
func realNodes() []string { return []string{nodeName(1), nodeName(2)} }

// stage is the bed with everything in it but an agent.
type stage struct {
	Config
	dir      string
	bed      *lab.Bed
	server   *kubeapi.Server
	api      api
	proxies  []*process
	servers  []*process
	client   *lab.Endpoint
	stranger *lab.Endpoint
	pods     int // of those that do nothing, so far
	remarks  []string
}

// build makes the cluster without the pods that do nothing.
func (s *stage) build(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "podwall-bench-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if s.bed, err = lab.NewBed(lab.Config{Wiring: s.Wiring, Nodes: realNodes()}); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.startServer, s.writeCluster, s.startProxies, s.startServers} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close takes everything down. What failed to be made is nil.
func (s *stage) close() error {
	errs := []error{stopAll(s.servers), stopAll(s.proxies)}
	if s.server != nil {
		errs = append(errs, s.server.Stop())
	}
	if s.bed != nil {
		errs = append(errs, s.bed.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// startServer starts the API server as a host of its own beside the nodes.
func (s *stage) startServer(ctx context.Context) error {
	addr := netip.AddrFrom4([4]byte{172, 30, 0, 1})
	host, err := s.bed.AddHost("api", []netip.Addr{addr})
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "api")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making a directory for the API server: %w", err)
	}
	s.server, err = kubeapi.Launch(ctx, dir, kubeapi.Options{Program: s.KubeAPI, Netns: host.NS, Bind: addr, Port: 6443})
	if err != nil {
		return err
	}
	config, err := s.server.RESTConfig()
	if err != nil {
		return err
	}
	s.api, err = newAPI(config)
	return err
}

// proxyConfig has kube-proxy take as local what comes from pods, so that it
// hides nobody behind the node's address: the policy is about addresses. Limits
// of connection tracking belong to the machine and stay as they are.
const proxyConfig = `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clientConnection: {kubeconfig: %s}
%s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
`

func (s *stage) startProxies(context.Context) error {
	local := "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}"
	if s.Wiring == lab.Bridge {
		local = "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: " + lab.BridgeName + "}"
	}
	for _, node := range realNodes() {
		file := filepath.Join(s.dir, "kube-proxy-"+node+".yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, proxyConfig, node, s.server.Kubeconfig, local), 0o600); err != nil {
			return fmt.Errorf("configuring kube-proxy: %w", err)
		}
		p, err := start(s.bed.Node(node).NS, "kube-proxy of "+node, filepath.Join(s.dir, "kube-proxy-"+node+".log"), exec.Command(s.KubeProxy, "--config="+file))
		if err != nil {
			return err
		}
		s.proxies = append(s.proxies, p)
	}
	return nil
}

// proxied returns when both kube-proxies have every endpoint in the kernel: in
// nftables mode each has a chain of its own.
func (s *stage) proxied(ctx context.Context) error {
	want := s.pods + len(servers())
	for i, node := range realNodes() {
		have := 0
		err := await(ctx, fmt.Sprintf("kube-proxy of %s to know %d endpoints", node, want), func() (bool, error) {
			cmd := exec.Command("nft", "list", "chains", "ip")
			var out strings.Builder
			cmd.Stdout = &out
			if err := run(s.bed.Node(node).NS, cmd); err != nil {
				return false, fmt.Errorf("listing the chains of %s: %w", node, err)
			}
			have = strings.Count(out.String(), "chain endpoint-")
			return have == want, s.proxies[i].lives()
		})
		if err != nil {
			return fmt.Errorf("%w; it has %d: %s", err, have, s.proxies[i].tail())
		}
	}
	return nil
}

// await asks until something holds.
func await(ctx context.Context, what string, holds func() (bool, error)) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			return fmt.Errorf("waiting for %s: not after %s", what, patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wire makes a pod in the bed, if its node is real.
func (s *stage) wire(p pod) (*lab.Endpoint, error) {
	if !slices.Contains(realNodes(), nodeName(p.node)) {
		return nil, nil
	}
	return s.bed.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: p.namespace, Name: p.name}, Node: nodeName(p.node), IPs: []netip.Addr{p.addr}})
}
