// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// statusHandler answers /healthz, /readyz and /statusz.
func (o *Observer) statusHandler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", o.serveHealth)
	mux.HandleFunc("GET /readyz", o.serveReady)
	mux.HandleFunc("GET /statusz", o.serveStatus)
	return mux
}

// serveMetrics adds the metrics. The path is compared by hand, because a
// pattern made from an operator's text could make ServeMux panic.
func (o *Observer) serveMetrics(mux *http.ServeMux, path string) {
	metrics := o.metricsPage()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			http.NotFound(w, r)
			return
		}
		metrics.ServeHTTP(w, r)
	})
}

// Pages returns the pages for who asks the agent in another way than by its ports: /statusz, /metrics, and
// /enforced, which is Enforced.
func (o *Observer) Pages() map[string]http.Handler {
	return map[string]http.Handler{"/statusz": http.HandlerFunc(o.serveStatus), "/metrics": o.metricsPage(),
		"/enforced": http.HandlerFunc(o.serveEnforced)}
}

func (o *Observer) metricsPage() http.Handler {
	return promhttp.HandlerFor(o.reg, promhttp.HandlerOpts{})
}

// serveHealth answers as kube-router does, "OK" or status 500, so that probes
// written for it keep working.
func (o *Observer) serveHealth(w http.ResponseWriter, _ *http.Request) {
	if ok, why := o.healthy(); !ok {
		http.Error(w, "Unhealthy: "+why, http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, "OK")
}

func (o *Observer) serveReady(w http.ResponseWriter, _ *http.Request) {
	s := o.Status()
	if !s.Ready {
		http.Error(w, "not ready: "+strings.Join(s.NotReady, "; "), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (o *Observer) serveStatus(w http.ResponseWriter, r *http.Request) {
	s := o.Status()
	w.Header().Set("Cache-Control", "no-store")
	switch r.FormValue("format") {
	case "", "json":
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(s) // the client went away
	case "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_ = s.WriteText(w) // the client went away
	default:
		http.Error(w, "format is json or text", http.StatusBadRequest)
	}
}
