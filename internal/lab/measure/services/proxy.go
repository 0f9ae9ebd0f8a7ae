// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/kubeproxy"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/process"
)

// The proxies that are compared.
const (
	podwall    = "podwall"
	nftables   = "kube-proxy nftables"
	iptables   = "kube-proxy iptables"
	oneService = "plain DNAT"
)

// proxy is one of them.
type proxy struct {
	name string
	// start starts it in a node; nil for rules that no program writes.
	start func(w *world) (*process.Process, error)
	// rules writes them then.
	rules func(w *world) error
}

// proxies are those that are measured at a size, podwall's own first.
func (c Config) proxies(s Size) []proxy {
	list := []proxy{{name: podwall, start: func(w *world) (*process.Process, error) {
		return process.Start(exec.Command(c.Agent, "--run-service-proxy=true", "--kubeconfig="+w.serving.File,
			"--hostname-override="+nodeName, "--cache-sync-timeout=5m", "--health-addr=127.0.0.1",
			"--gate-socket="+filepath.Join(w.dir, "gate.sock")),
			process.Options{Name: podwall, Log: filepath.Join(w.dir, "*.log"), NS: w.node.NS, Group: true})
	}}, {name: oneService, rules: (*world).plainDNAT}}
	if c.KubeProxy == "" {
		return list
	}
	list = append(list, proxy{name: nftables, start: c.kubeProxy("nftables")})
	if s.Services <= iptablesServices {
		list = append(list, proxy{name: iptables, start: c.kubeProxy("iptables")})
	}
	return list
}

func (c Config) kubeProxy(mode string) func(*world) (*process.Process, error) {
	return func(w *world) (*process.Process, error) {
		return kubeproxy.Start(w.node, kubeproxy.Config{Program: c.KubeProxy, Mode: mode, Kubeconfig: w.serving.File,
			Dir: w.dir, Local: "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}"})
	}
}

// plainDNAT translates the first Service by one rule: what translation itself costs.
func (w *world) plainDNAT() error {
	var list []lab.Service
	for i, p := range []packet.Protocol{packet.UDP, packet.TCP} {
		list = append(list, lab.Service{Front: netip.AddrPortFrom(clusterAddr(i), port), Proto: p,
			Backends: []netip.AddrPort{netip.AddrPortFrom(serverAddr(0), port)}})
	}
	if err := w.bed.SetServices(list); err != nil {
		return fmt.Errorf("translating one Service: %w", err)
	}
	return nil
}
