// SPDX-License-Identifier: Apache-2.0

package observe

import "github.com/prometheus/client_golang/prometheus"

// maxDeniedSeries bounds the counters by policy: tenants make policies, and each costs memory here
// and in Prometheus until the agent is started again.
const maxDeniedSeries = 2000

// deniedMetrics are those of denied flows that are recorded.
type deniedMetrics struct {
	packets  *prometheus.CounterVec
	events   *prometheus.CounterVec
	byPolicy *prometheus.CounterVec
	series   map[policySeries]bool
}

type policySeries struct{ namespace, policy, direction, verdict string }

// deniedResults are what becomes of a packet that the kernel gave to the agent: a record of either
// verdict, or none.
func deniedResults() []string { return []string{"denied", "would-deny", "lost"} }

func newDeniedMetrics(b *builder) deniedMetrics {
	const name, help = "policy_denied_packets_total", "Recorded packets that policies denied, for each policy that " +
		"isolates the pod in the direction. Only with --denied-flows-to=counters. Above the rate of records packets " +
		"are denied and not counted here. Policies beyond the first 2,000 series count with empty labels."
	labels := []string{"namespace", "policy", "direction", "verdict"}
	b.define(name, "counter", help,
		"`namespace`, `policy`, `direction`: ingress, egress, `verdict`: denied, would-deny")
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	b.reg.MustRegister(v)
	return deniedMetrics{byPolicy: v, series: map[policySeries]bool{},
		events: b.counters("denied_flow_events_total", "Events on pods about denied flows, with "+
			"--denied-flows-to=events. exists: it was written before a restart. failed: the API server refused it. "+
			"dropped: the node or the pod's namespace had its share of the minute, or the pod no longer existed.",
			"result", EventResults()...),
		packets: b.counters("denied_packets_recorded_total", "Denied packets that the kernel gave to the agent. "+
			"denied, would-deny: the verdict of their records. lost: too many came at once. Of each pod and peer it "+
			"gives ten a second; all that policies denied are in podwall_dropped_packets_total.", "result",
			deniedResults()...)}
}

// Audits are packets that policies in audit mode would have denied, as the kernel's counters stand now.
type Audits struct{ Ingress, Egress uint64 }

// SetAudits records the kernel's counters, as SetDrops does.
func (o *Observer) SetAudits(now Audits) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ingress, egress := grown(o.audits.Ingress, now.Ingress), grown(o.audits.Egress, now.Egress)
	o.metrics.wouldDeny.WithLabelValues("ingress").Add(float64(ingress))
	o.metrics.wouldDeny.WithLabelValues("egress").Add(float64(egress))
	o.status.WouldDeny += ingress + egress
	o.audits = now
}

// AddDenied counts packets of a recorded flow.
func (o *Observer) AddDenied(verdict string, packets uint64) {
	o.metrics.denied.packets.WithLabelValues(verdict).Add(float64(packets))
}

// AddDeniedLost counts denied packets that were not recorded because too many came at once.
func (o *Observer) AddDeniedLost(packets uint64) {
	o.metrics.denied.packets.WithLabelValues("lost").Add(float64(packets))
}

// AddDeniedEvent records what became of an Event about a denied flow.
func (o *Observer) AddDeniedEvent(result string) {
	o.metrics.denied.events.WithLabelValues(result).Inc()
}

// AddDeniedBy counts packets that were denied by a policy, or would have been.
func (o *Observer) AddDeniedBy(namespace, policy, direction, verdict string, packets uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, s := &o.metrics.denied, policySeries{namespace, policy, direction, verdict}
	if !d.series[s] && len(d.series) >= maxDeniedSeries {
		s = policySeries{direction: direction, verdict: verdict}
	}
	d.series[s] = true
	d.byPolicy.WithLabelValues(s.namespace, s.policy, s.direction, s.verdict).Add(float64(packets))
}
