// SPDX-License-Identifier: Apache-2.0

// Command kube-proxy is the upstream kube-proxy without changes, for
// integration tests: nothing else of this repository may say what the real one
// does to a packet before podwall sees it. It stands in this module because it
// comes from the same release as the API server, so that both share what is
// compiled. Tests start it as a process inside the network namespace of a node
// and never anywhere else: it writes nftables or iptables rules.
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
