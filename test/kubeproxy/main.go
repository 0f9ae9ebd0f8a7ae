// SPDX-License-Identifier: Apache-2.0

// Command kubeproxy is the upstream kube-proxy without changes, of a newer release than the one that tests run
// beside podwall: what is measured against must be the best that there is. It has a module of its own, since
// each release of Kubernetes pins its own dependencies. It runs in the network namespace of a node of a
// measurement and never anywhere else: it writes nftables or iptables rules.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // as in the released binary
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as in the released binary
	_ "k8s.io/component-base/metrics/prometheus/version"  // as in the released binary
	"k8s.io/kubernetes/cmd/kube-proxy/app"
)

func main() { os.Exit(cli.Run(app.NewProxyCommand())) }
