// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	left "github.com/podwall/podwall/internal/leftover/host"
	"github.com/podwall/podwall/internal/proxy/foreign"
	"github.com/podwall/podwall/internal/proxy/health"
)

// The ports of kube-proxy: k3s, which runs it inside its own process, has the same.
const (
	healthPort  = 10256
	metricsPort = 10249
)

// running looks for running proxies: by the names of the visible processes, and by what answers at
// kube-proxy's ports.
func running(ctx context.Context) (signs []foreign.Sign, err error) {
	for program, proxy := range map[string]string{"kube-proxy": foreign.KubeProxy, "kube-router": foreign.KubeRouter} {
		processes, err := left.Processes(program)
		if err != nil {
			return nil, err
		}
		for _, p := range processes {
			if !slices.Contains(p.Args, "--run-service-proxy=false") {
				signs = append(signs, foreign.Sign{Proxy: proxy, Text: "process " + p.ID + " has its name"})
			}
		}
	}
	for _, at := range ports() {
		addrs, err := left.Listeners(at.port)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			where := netip.AddrPortFrom(a, at.port)
			if answer, ok := left.Ask(ctx, where, at.path); ok && at.is(answer) {
				signs = append(signs, foreign.Sign{Proxy: foreign.KubeProxy,
					Text: fmt.Sprintf("it answers at %s%s", where, at.path)})
			}
		}
	}
	slices.SortFunc(signs, func(a, b foreign.Sign) int { return strings.Compare(a.Proxy+a.Text, b.Proxy+b.Text) })
	return slices.Compact(signs), nil
}

// port is a port with the page that tells kube-proxy.
type port struct {
	port uint16
	path string
	is   func(left.Answer) bool
}

func ports() []port {
	return []port{{metricsPort, "/proxyMode", tellsMode}, {healthPort, "/healthz", tellsHealth}}
}

// tellsMode recognises the page on which kube-proxy names its mode.
func tellsMode(a left.Answer) bool {
	return slices.Contains([]string{"iptables", "ipvs", "nftables"}, strings.TrimSpace(string(a.Body)))
}

// tellsHealth recognises kube-proxy's health page. Cilium's replacement has the same page, and podwall's own
// proxy, but for a header.
func tellsHealth(a left.Answer) bool {
	var page map[string]json.RawMessage
	return a.Header.Get("Server") != health.ServerName && json.Unmarshal(a.Body, &page) == nil &&
		page["lastUpdated"] != nil && page["currentTime"] != nil
}
