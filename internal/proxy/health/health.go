// SPDX-License-Identifier: Apache-2.0

// Package health tells load balancers whether this node is to get traffic for Services: at the health-check
// node ports of Services with externalTrafficPolicy Local, and at a port for the proxy as a whole. The pages
// are those of kube-proxy. Ask computes an answer; Server owns the ports.
package health

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/podwall/podwall/internal/proxy/service"
)

// ServerName is in the header Server of every answer, so that podwall is not taken for kube-proxy.
const ServerName = "podwall"

// Patience is how long a change may wait for the kernel until the proxy is not healthy any more. It is
// kube-proxy's: two of its default periods.
const Patience = time.Minute

// Proxy is the state of the proxy. The zero value is that of one that has just started.
type Proxy struct {
	// Synced is when the kernel last had all Services; zero for never.
	Synced time.Time
	// Pending is since when a change has been waiting; zero if none is.
	Pending time.Time
	// Leaving is true if the node is about to go away: it has the taint ToBeDeletedByClusterAutoscaler, is
	// being deleted, or is gone.
	Leaving bool
}

// Healthy reports whether the kernel has the Services, or is not much behind.
func (p Proxy) Healthy(now time.Time) bool { return !p.Synced.IsZero() && !p.late(now) }

// Alive is like Healthy, but that a proxy is alive until it had all Services for the first time: starting it
// again would not help.
func (p Proxy) Alive(now time.Time) bool { return p.Synced.IsZero() || !p.late(now) }

func (p Proxy) late(now time.Time) bool { return !p.Pending.IsZero() && now.Sub(p.Pending) >= Patience }

// Answer is an answer to a request.
type Answer struct {
	Status int
	Header map[string]string
	Body   []byte
}

// servicePage is the body at a health-check node port.
type servicePage struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

// ForService answers at a Service's health-check node port: 200 if the node has a ready endpoint and the
// proxy is healthy. A node that is leaving answers as before: its endpoints are still there, and the load
// balancer takes the node away by the other port.
func ForService(h service.Health, p Proxy, now time.Time) Answer {
	page := servicePage{LocalEndpoints: h.Ready, ServiceProxyHealthy: p.Healthy(now)}
	page.Service.Namespace, page.Service.Name = h.Service.Namespace, h.Service.Name
	return answer(h.Ready > 0 && page.ServiceProxyHealthy, page, "X-Load-Balancing-Endpoint-Weight",
		strconv.Itoa(h.Ready))
}

// proxyPage is the body of /healthz and /livez.
type proxyPage struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"`
}

// Healthz answers at /healthz: 200 if the proxy is healthy and the node stays.
func Healthz(p Proxy, now time.Time) Answer {
	stays := !p.Leaving
	return proxyAnswer(p, now, p.Healthy(now), &stays)
}

// Livez answers at /livez: 200 if the proxy is alive, whatever becomes of the node.
func Livez(p Proxy, now time.Time) Answer { return proxyAnswer(p, now, p.Alive(now), nil) }

// proxyAnswer returns a page of the proxy. While it is healthy nothing is older than now, as in kube-proxy.
func proxyAnswer(p Proxy, now time.Time, healthy bool, stays *bool) Answer {
	page := proxyPage{LastUpdated: p.Synced, CurrentTime: now, NodeEligible: stays, Healthy: healthy}
	good := healthy && (stays == nil || *stays)
	if good {
		page.LastUpdated = now
	}
	return answer(good, page)
}

func answer(good bool, page any, header ...string) Answer {
	a := Answer{Status: http.StatusServiceUnavailable, Header: map[string]string{"Content-Type": "application/json",
		"X-Content-Type-Options": "nosniff", "Server": ServerName}}
	if good {
		a.Status = http.StatusOK
	}
	for i := 0; i+1 < len(header); i += 2 {
		a.Header[header[i]] = header[i+1]
	}
	a.Body, _ = json.Marshal(page) // text, numbers and times only
	return a
}
