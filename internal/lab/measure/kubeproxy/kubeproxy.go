// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package kubeproxy runs the real kube-proxy in a node of a measurement. It says how kube-proxy is configured and
// nothing else: when its rules are complete, the caller has to find out. Neighbours of an agent are made here,
// between packages process and apiserver and what is measured.
package kubeproxy

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/process"
)

// Config is for one node.
type Config struct {
	Program, Kubeconfig string
	// Mode is nftables, also if it is empty, or iptables.
	Mode string
	// Dir gets the configuration and the log.
	Dir string
	// Local is how kube-proxy knows what comes from pods, and so hides nobody
	// behind the node's address: lines of its configuration.
	Local string
	// Flags are added to the command line.
	Flags []string
}

// file is a usual configuration, but that limits of connection tracking stay as
// they are: they belong to the machine, not to a namespace.
const file = `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: %s
clientConnection: {kubeconfig: %s}
%s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
`

// Start starts kube-proxy in a node. The caller must stop it; its rules stay.
func Start(node *lab.Endpoint, c Config) (*process.Process, error) {
	name := filepath.Join(c.Dir, "kube-proxy-"+node.Name+".yaml")
	text := fmt.Appendf(nil, file, cmp.Or(c.Mode, "nftables"), node.Name, c.Kubeconfig, c.Local)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return nil, fmt.Errorf("configuring kube-proxy: %w", err)
	}
	return process.Start(exec.Command(c.Program, append([]string{"--config=" + name}, c.Flags...)...),
		process.Options{Name: "kube-proxy of " + node.Name, Log: filepath.Join(c.Dir, "*.log"), NS: node.NS,
			Group: true})
}
