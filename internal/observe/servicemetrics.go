// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podwall/podwall/internal/cluster"
)

// serviceMetrics are the metrics of the service proxy. They exist only where it runs.
type serviceMetrics struct {
	services, fronts, backends, idle prometheus.Gauge
	applyDuration                    *prometheus.HistogramVec
	applies                          *prometheus.CounterVec
	lastApply                        prometheus.Gauge
	programming                      prometheus.Histogram
	diagnostics                      *prometheus.GaugeVec
	drops                            *prometheus.CounterVec
	ended, forgotten, repairs        prometheus.Counter

	// Under kube-proxy's names, for dashboards that know them.
	network, sync prometheus.Histogram
	lastSync      prometheus.Gauge
	syncFailures  prometheus.Counter
	reconciled    prometheus.Counter
}

func newServiceMetrics(b *builder) *serviceMetrics {
	const only = " Only with --run-service-proxy."
	m := &serviceMetrics{
		services: b.gauge("services", "Services that are served."+only),
		fronts: b.gauge("service_fronts", "Addresses and ports at which Services are served, node ports once for each "+
			"family."+only),
		backends: b.gauge("service_backends", "Numbered backends of all fronts."+only),
		idle:     b.gauge("services_without_endpoints", "Services without a backend at any front."+only),
		applyDuration: b.histograms("service_apply_duration_seconds", "Duration of a pass of the service proxy, from "+
			"the change taken to the kernel's answer. Kind full compares the whole tables, delta writes a change."+only,
			durations(), "kind", "delta", "full"),
		applies: b.counters("service_apply_total", "Passes of the service proxy by result."+only, "result", "ok",
			"error"),
		lastApply: b.gauge("service_last_apply_timestamp_seconds", "Unix time of the last pass of the service proxy "+
			"that succeeded; 0 before it."+only),
		programming: b.histogram("service_programming_duration_seconds", "Time from a change of a Service, an "+
			"EndpointSlice or a Node that the agent received to the kernel's answer."+only, durations()),
		diagnostics: b.gauges("service_diagnostics", "Findings about Services and EndpointSlices. Severity error: a "+
			"part is not served."+only, "severity", cluster.Warning.String(), cluster.Error.String()),
		drops: b.counters("service_refused_packets_total", "First packets of connections that were not forwarded. "+
			"reject-no-backend: a Service without endpoints. reject-unknown-port: a port that the Service does not "+
			"have. drop-no-backend: traffic policy Local, and no endpoint on this node. drop-not-admitted: outside of "+
			"loadBalancerSourceRanges. drop-unallocated: an address of a service range that no Service has. "+
			"drop-missing-slot: the backend went while it was chosen."+only, "reason", ServiceDropReasons()...),
		ended: b.counter("service_connections_ended_total", "Entries of the connection table that were deleted: UDP "+
			"connections to a backend that went or past a Service, TCP connections begun while no rule stood."+only),
		forgotten: b.counter("service_clients_forgotten_total", "Clients of Services with affinity whose backend "+
			"went."+only),
		repairs: b.counter("service_drift_repairs_total", "Differences in the tables of Services that this agent did "+
			"not make and repaired."+only),
	}
	b.prefix = "kubeproxy_"
	defer func() { b.prefix = prefix }()
	m.network = b.histogram("network_programming_duration_seconds", "As kube-proxy has it: time from the change of a "+
		"pod or a Service, as EndpointSlices say it, to the kernel's answer. It compares clocks of two machines."+only,
		programmingBounds())
	m.sync = b.histogram("sync_proxy_rules_duration_seconds", "As kube-proxy has it: the duration of each pass that "+
		"succeeded."+only, durations())
	m.lastSync = b.gauge("sync_proxy_rules_last_timestamp_seconds", "As kube-proxy has it: podwall's "+
		"service_last_apply_timestamp_seconds."+only)
	m.syncFailures = b.counter("sync_proxy_rules_nftables_sync_failures_total", "As kube-proxy has it: passes that "+
		"failed."+only)
	m.reconciled = b.counter("conntrack_reconciler_deleted_entries_total", "As kube-proxy has it: podwall's "+
		"service_connections_ended_total."+only)
	return m
}

// programmingBounds are kube-proxy's bounds of the time from a change to the kernel's answer, in seconds.
func programmingBounds() (list []float64) {
	list = append(list, prometheus.LinearBuckets(0.25, 0.25, 2)...)
	list = append(list, prometheus.LinearBuckets(1, 1, 59)...)
	list = append(list, prometheus.LinearBuckets(60, 5, 12)...)
	return append(list, prometheus.LinearBuckets(120, 30, 7)...)
}

// record counts a pass that ended at the given time.
func (m *serviceMetrics) record(p ServicePass, now time.Time) {
	m.applyDuration.WithLabelValues(kind(p.Full)).Observe(p.Elapsed.Seconds())
	m.ended.Add(float64(p.Ended))
	m.reconciled.Add(float64(p.Ended))
	m.forgotten.Add(float64(p.Forgotten))
	m.repairs.Add(float64(p.Repairs))
	setDiagnostics(m.diagnostics, p.Diagnostics)
	if p.Err != nil {
		m.applies.WithLabelValues("error").Inc()
		m.syncFailures.Inc()
		return
	}
	m.applies.WithLabelValues("ok").Inc()
	m.sync.Observe(p.Elapsed.Seconds())
	at := float64(now.UnixMilli()) / 1000
	m.lastApply.Set(at)
	m.lastSync.Set(at)
	m.services.Set(float64(p.Services))
	m.fronts.Set(float64(p.Fronts))
	m.backends.Set(float64(p.Backends))
	m.idle.Set(float64(len(p.WithoutEndpoints)))
}
