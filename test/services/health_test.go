// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
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
			answer, body := healthy(t, "http://"+at)
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

// Metrics that bear the names of kube-proxy's are among its own. Its page does not list one that it has not counted
// yet, so the names are looked for in the program.
func TestMetricsHaveTheNamesOfKubeProxys(t *testing.T) {
	program, err := os.ReadFile(kubeProxyProgram(t))
	check(t, err)
	page, err := os.ReadFile("../../docs/metrics.md")
	check(t, err)
	ours := regexp.MustCompile("(?m)^\\| `kubeproxy_(\\w+)` ").FindAllSubmatch(page, -1)
	if len(ours) != 5 {
		t.Errorf("docs/metrics.md has %d of kube-proxy's names, docs/services.md says five", len(ours))
	}
	for _, m := range ours {
		if !bytes.Contains(program, m[1]) {
			t.Errorf("kube-proxy has no %s", m[1])
		}
	}
}

// healthy returns what kube-proxy answers when it is healthy: with the short period of these tests it is not when
// others have the processors for a second.
func healthy(t *testing.T, at string) (*http.Response, []byte) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		answer, err := http.Get(at)
		check(t, err)
		body, err := io.ReadAll(answer.Body)
		check(t, err)
		check(t, answer.Body.Close())
		if answer.StatusCode == http.StatusOK || time.Now().After(end) {
			return answer, body
		}
	}
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
