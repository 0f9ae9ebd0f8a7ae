// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"time"

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
	// pause is between two changes: longer than it waits on purpose after a change.
	pause time.Duration
	// start starts it in a node; nil for rules that no program writes.
	start func(w *world) (*process.Process, error)
	// rules writes them then.
	rules func(w *world) error
}

// proxies are those that are measured at a size, podwall's own first.
func (c Config) proxies(s Size) []proxy {
	list := []proxy{{name: podwall, pause: 100 * time.Millisecond, start: func(w *world) (*process.Process, error) {
		return process.Start(exec.Command(c.Agent, "--run-service-proxy=true", "--kubeconfig="+w.serving.File,
			"--hostname-override="+nodeName, "--cache-sync-timeout=5m", "--health-addr=127.0.0.1",
			"--gate-socket="+filepath.Join(w.dir, "gate.sock")),
			process.Options{Name: podwall, Log: filepath.Join(w.dir, "*.log"), NS: w.node.NS, Group: true})
	}}, {name: oneService, rules: (*world).plainDNAT}}
	all := s.Services * s.Endpoints
	if c.KubeProxy != "" && all <= nftablesEndpoints {
		list = append(list, c.kubeProxy(nftables, "nftables"))
	}
	if c.KubeProxy != "" && all <= iptablesEndpoints {
		list = append(list, c.kubeProxy(iptables, "iptables"))
	}
	return list
}

// kubeProxy is kube-proxy in a mode. It waits for a second after a sync, on purpose.
func (c Config) kubeProxy(name, mode string) proxy {
	return proxy{name: name, pause: 1200 * time.Millisecond, start: func(w *world) (*process.Process, error) {
		local := "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}"
		if w.size.Bridge {
			local = "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: " + lab.BridgeName + "}"
		}
		if c.Quick {
			local += "\nnftables: {minSyncPeriod: 50ms}\niptables: {minSyncPeriod: 50ms}"
		}
		return kubeproxy.Start(w.node, kubeproxy.Config{Program: c.KubeProxy, Mode: mode, Kubeconfig: w.serving.File,
			Dir: w.dir, Local: local})
	}}
}

// plainDNAT translates the first Service by one rule: what translation itself costs.
func (w *world) plainDNAT() error {
	var list []lab.Service
	for i, p := range []packet.Protocol{packet.UDP, packet.TCP} {
		list = append(list, lab.Service{Front: netip.AddrPortFrom(w.size.clusterAddr(i), port), Proto: p,
			Backends: []netip.AddrPort{netip.AddrPortFrom(w.size.serverAddr(0), port)}})
	}
	if err := w.bed.SetServices(list); err != nil {
		return fmt.Errorf("translating one Service: %w", err)
	}
	return nil
}
