// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	inside "github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/proxy/health"
	"github.com/podwall/podwall/internal/proxy/service"
)

// The pages for load balancers are kube-proxy's: status, headers and fields.
func TestHealthPagesBesideKubeProxy(t *testing.T) {
	kubeProxyProgram(t)
	inside.Run(t, func(t *testing.T) {
		here(t)
		startHere(t, "nftables")
		now := time.Now()
		proxy := health.Proxy{Synced: now}
		key := cluster.Key{Namespace: "shop", Name: "web"}
		for at, ours := range map[string]health.Answer{
			nodeV4 + ":31000/":        health.ForService(service.Health{Port: 31000, Service: key, Ready: 1}, proxy, now),
			"127.0.0.1:10256/healthz": health.Healthz(proxy, now),
			"127.0.0.1:10256/livez":   health.Livez(proxy, now),
		} {
			answer, err := http.Get("http://" + at)
			check(t, err)
			body, err := io.ReadAll(answer.Body)
			check(t, err)
			check(t, answer.Body.Close())
			if answer.StatusCode != ours.Status {
				t.Errorf("%s: kube-proxy says %d, we %d", at, answer.StatusCode, ours.Status)
			}
			for name, value := range ours.Header {
				if got := answer.Header.Get(name); got != value && name != "Server" {
					t.Errorf("%s: kube-proxy's header %s is %q, ours %q", at, name, got, value)
				}
			}
			if diff := cmp.Diff(fields(t, body), fields(t, ours.Body)); diff != "" {
				t.Errorf("%s (-kube-proxy +ours):\n%s", at, diff)
			}
		}
	})
}

// fields returns the fields of a page; times, and the families that kube-proxy lists one by one, only by name.
func fields(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var page map[string]any
	check(t, json.Unmarshal(body, &page))
	for name := range page {
		if name == "lastUpdated" || name == "currentTime" {
			page[name] = "a time"
		}
	}
	delete(page, "status")
	return page
}
