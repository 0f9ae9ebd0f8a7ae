// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/measure/kubeproxy"
	"github.com/podwall/podwall/internal/lab/process"
)

// kubeProxies runs the real kube-proxy in both nodes until its rules are in the
// kernel, where they stay.
func kubeProxies(ctx context.Context, program string, api *apiserver.Server, bed *lab.Bed) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range nodeNames() {
		g.Go(func() error {
			if err := kubeProxy(ctx, program, api, bed.Node(name)); err != nil {
				return fmt.Errorf("running kube-proxy on %s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func kubeProxy(ctx context.Context, program string, api *apiserver.Server, node *lab.Endpoint) (err error) {
	dir, err := os.MkdirTemp("", "podwall-bench-proxy-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	relay, err := api.Relay(ctx, node.NS)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Close()) }()
	p, err := kubeproxy.Start(node, kubeproxy.Config{Program: program, Kubeconfig: api.Kubeconfig, Dir: dir,
		Flags: []string{"-v=4"},
		Local: "detectLocalMode: ClusterCIDR\nclusterCIDR: 10.244.0.0/16,fd00:244::/32"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	return process.Until(ctx, "the rules of both families", func(context.Context) (bool, error) {
		text, err := p.Log()
		const done = `yncProxyRules complete" ipFamily="`
		return bytes.Contains(text, []byte(done+`IPv4"`)) && bytes.Contains(text, []byte(done+`IPv6"`)), err
	}, p)
}

// proxyObjects are the nodes, and Services with an endpoint each.
func proxyObjects(bed *lab.Bed) []byte {
	const services = 10
	var b strings.Builder
	b.WriteString("{apiVersion: v1, kind: Namespace, metadata: {name: " + namespace + "}}\n")
	b.Write(nodeObjects(bed))
	for i := range services {
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: %s}, spec: "+
			"{ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}}\n", i, namespace)
		for family, a := range realPods()[1].IPs {
			fmt.Fprintf(&b, "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s%d-%d, "+
				"namespace: %s, labels: {kubernetes.io/service-name: s%d}}, "+
				"addressType: IPv%d, ports: [{port: 80, protocol: TCP, name: ''}], endpoints: [{addresses: [%q], "+
				"nodeName: node1, conditions: {ready: true}}]}\n",
				i, family, namespace, i, 4+2*family, a)
		}
	}
	return []byte(b.String())
}
