// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/proxy/service"
)

var (
	now    = time.Date(2026, 11, 30, 13, 0, 0, 0, time.UTC)
	synced = now.Add(-time.Hour)
)

func TestWhenTheProxyIsHealthy(t *testing.T) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	tests := []struct {
		name                                string
		proxy                               Proxy
		service, healthz, livez             int
		lastUpdated                         time.Time // at /healthz
		eligible, healthyPage, healthyAlive bool
	}{
		{"at the start", Proxy{}, 503, 503, 200, time.Time{}, true, false, true},
		{"at a start that takes long", Proxy{Pending: ago(time.Hour)}, 503, 503, 200, time.Time{}, true, false, true},
		{"idle", Proxy{Synced: synced}, 200, 200, 200, now, true, true, true},
		{"a change waits", Proxy{Synced: synced, Pending: ago(Patience - 1)}, 200, 200, 200, now, true, true, true},
		{"a change waits too long", Proxy{Synced: synced, Pending: ago(Patience)}, 503, 503, 503, synced, true, false, false},
		{"the node is leaving", Proxy{Synced: synced, Leaving: true}, 200, 503, 200, synced, false, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := service.Health{Port: 31000, Service: cluster.Key{Namespace: "shop", Name: "web"}, Ready: 2}
			if got := ForService(h, tt.proxy, now).Status; got != tt.service {
				t.Errorf("a Service with endpoints: %d, want %d", got, tt.service)
			}
			h.Ready = 0
			if got := ForService(h, tt.proxy, now).Status; got != 503 {
				t.Errorf("a Service without endpoints: %d, want 503", got)
			}
			healthz, livez := Healthz(tt.proxy, now), Livez(tt.proxy, now)
			if healthz.Status != tt.healthz || livez.Status != tt.livez {
				t.Errorf("/healthz %d, /livez %d, want %d and %d", healthz.Status, livez.Status, tt.healthz, tt.livez)
			}
			var page proxyPage
			if err := json.Unmarshal(healthz.Body, &page); err != nil {
				t.Fatal(err)
			}
			want := proxyPage{LastUpdated: tt.lastUpdated, CurrentTime: now, NodeEligible: &tt.eligible, Healthy: tt.healthyPage}
			if diff := cmp.Diff(want, page); diff != "" {
				t.Errorf("/healthz (-want +got):\n%s", diff)
			}
			page = proxyPage{}
			if err := json.Unmarshal(livez.Body, &page); err != nil || page.NodeEligible != nil || page.Healthy != tt.healthyAlive {
				t.Errorf("/livez is %s (%v)", livez.Body, err)
			}
		})
	}
}

func TestThePageOfAService(t *testing.T) {
	h := service.Health{Port: 31000, Service: cluster.Key{Namespace: "shop", Name: "web"}, Ready: 3}
	want := Answer{Status: 200, Header: map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff",
		"Server": "podwall", "X-Load-Balancing-Endpoint-Weight": "3"},
		Body: []byte(`{"service":{"namespace":"shop","name":"web"},"localEndpoints":3,"serviceProxyHealthy":true}`)}
	if diff := cmp.Diff(want, ForService(h, Proxy{Synced: synced}, now)); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}
