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
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/measure/kubeproxy"
	"github.com/podwall/podwall/internal/lab/process"
)

// realNodes have a namespace; the others are names.
func realNodes() []string { return []string{nodeName(1), nodeName(2)} }

// stage is the bed with everything in it but an agent.
type stage struct {
	Config
	dir      string
	bed      *lab.Bed
	server   *apiserver.Server
	proxies  []*process.Process
	servers  []*process.Process
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
	errs := []error{process.StopAll(s.servers), process.StopAll(s.proxies)}
	if s.server != nil {
		errs = append(errs, s.server.Close())
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
	s.server, err = apiserver.Start(ctx, s.KubeAPI, host.NS, addr)
	return err
}

// startProxies has kube-proxy take as local what comes from pods, so that it
// hides nobody behind the node's address: the policy is about addresses.
func (s *stage) startProxies(context.Context) error {
	local := "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}"
	if s.Wiring == lab.Bridge {
		local = "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: " + lab.BridgeName + "}"
	}
	for _, node := range realNodes() {
		p, err := kubeproxy.Start(s.bed.Node(node), kubeproxy.Config{Program: s.KubeProxy,
			Kubeconfig: s.server.Kubeconfig, Dir: s.dir, Local: local})
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
		err := process.Until(ctx, fmt.Sprintf("%d endpoints of kube-proxy", want), func(context.Context) (bool, error) {
			cmd := exec.Command("nft", "list", "chains", "ip")
			var out strings.Builder
			cmd.Stdout = &out
			if err := process.Run(s.bed.Node(node).NS, cmd); err != nil {
				return false, fmt.Errorf("listing the chains of %s: %w", node, err)
			}
			have = strings.Count(out.String(), "chain endpoint-")
			return have == want, nil
		}, s.proxies[i])
		if err != nil {
			return fmt.Errorf("%s has %d endpoints: %w", node, have, err)
		}
	}
	return nil
}

// wire makes a pod in the bed, if its node is real.
func (s *stage) wire(p pod) (*lab.Endpoint, error) {
	if !slices.Contains(realNodes(), nodeName(p.node)) {
		return nil, nil
	}
	return s.bed.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: p.namespace, Name: p.name}, Node: nodeName(p.node),
		IPs: []netip.Addr{p.addr}})
}
