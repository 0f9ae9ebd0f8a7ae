// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

// NewRegistry returns a registry of its own, with the figures of the Go
// runtime and of the process.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// metrics is every metric of the agent. Labels come from small closed sets: never a pod or an
// address, and a policy only where the operator asks for it.
type metrics struct {
	applyDuration *prometheus.HistogramVec
	programming   prometheus.Histogram
	gatePods      *prometheus.CounterVec
	gateWait      prometheus.Histogram
	events        *prometheus.CounterVec
	sourceErrors  *prometheus.CounterVec
	unannounced   prometheus.Counter
	applies       *prometheus.CounterVec
	lastApply     prometheus.Gauge
	snapshot      prometheus.Gauge
	applied       prometheus.Gauge
	workloads     prometheus.Gauge
	isolated      prometheus.Gauge
	audited       prometheus.Gauge
	wouldDeny     *prometheus.CounterVec
	policies      prometheus.Gauge
	diagnostics   *prometheus.GaugeVec
	elements      prometheus.Gauge
	objects       *prometheus.GaugeVec
	repairs       prometheus.Counter
	drops         *prometheus.CounterVec
	problems      *prometheus.GaugeVec
	unsure        *prometheus.GaugeVec
	withoutPod    prometheus.Gauge
	open          prometheus.Gauge
	cuts          *prometheus.CounterVec
	refused       prometheus.Gauge
	scans         prometheus.Counter
	scanned       prometheus.Counter
	scanSeconds   prometheus.Counter
	entries       prometheus.Gauge
	entriesLimit  prometheus.Gauge
	used          *prometheus.GaugeVec
	connected     *prometheus.GaugeVec
	heard         *prometheus.GaugeVec
	denied        deniedMetrics
}

// Unsures are the values of the label of podwall_pods_unsure.
func Unsures() []string {
	return []string{"bypassed", "contested", "elsewhere", "unbound", "unclear", "unreached"}
}

// computedValues are read at each scrape.
type computedValues struct {
	ready         func() bool
	policyVersion func() float64
	held          func(why string) float64
}

func newMetrics(b *builder, version string, now computedValues) *metrics {
	b.info("build_info", "Always 1; the labels are the versions of the agent and of Go.",
		prometheus.Labels{"version": version, "goversion": runtime.Version()})
	b.predicate("ready", "1 when the kernel enforces the last revision and no problem blocks readiness, as in "+
		"/readyz.", now.ready)
	b.function("policy_version", "The resourceVersion up to which every policy is in the kernel; 0 before the first "+
		"pass, and without an API server. Versions of one cluster can be compared: a node whose version stays below "+
		"that of others is behind.", now.policyVersion)
	b.computed("pods_held", "Pods of this node that have been closed for more than a second and wait, by what they "+
		"wait for; /statusz names them. connections: the search for connections that are older than the pod. "+
		"elsewhere: a route of its address that leads to the pod. policies: its namespace has used up its share of "+
		"the agent's time.", "why", heldWhys(), now.held)
	m := &metrics{
		programming: b.histogram("programming_duration_seconds", "Time from a change that the agent "+
			"received to the kernel's answer, with every wait in between. Changes that arrive together count once, "+
			"from the first on.",
			durations()),
		gatePods: b.counters("gate_pods_total", "Pods that were announced at the start gate, by the answer. "+
			"enforced: the kernel has their verdicts. "+
			"isolated, unknown: not in time; they start closed, or not at all. none: the agent stopped meanwhile, and "+
			"the gate waits for the next one. refused: announced by a user without the right.",
			"answer", GateAnswers()...),
		gateWait: b.histogram("gate_wait_seconds", "Time that a pod waited at the start gate for the agent's answer.",
			durations()),
		sourceErrors: b.counters("source_errors_total",
			"Requests to the API server that failed, and watches that broke. unreachable: no answer. unauthorized: "+
				"the credentials are not accepted. forbidden: the role is missing. refused: another error of the "+
				"server. broken: the connection of a watch was lost.",
			"reason", SourceErrors()...),
		events: b.counters("policy_events_total", "Events about findings, for the authors of policies. "+
			"written: by this node. exists: another node wrote it, or this one before a restart. failed: the API "+
			"server refused it. dropped: the queue was full, or the policy or the finding no longer existed.",
			"result", EventResults()...),
		unannounced: b.counter("gate_unannounced_pods_total",
			"Pods of this node that started and were not announced at the start gate. Where the gate is used it "+
				"stays at 0, unless the runtime's configuration was changed. podwall-gate status on the node prints "+
				"which file the runtime uses."),
		applyDuration: b.histograms("apply_duration_seconds",
			"Duration of a pass, from the change taken to the kernel's "+
				"answer. Kind full compares the whole table, delta writes a change.",
			durations(), "kind", "delta", "full"),
		applies:   b.counters("apply_total", "Passes by result.", "result", "ok", "error"),
		lastApply: b.gauge("last_apply_timestamp_seconds", "Unix time of the last pass that succeeded; 0 before it."),
		snapshot: b.gauge("snapshot_revision",
			"Revision of the cluster that the last pass tried to enforce. It counts "+
				"changes since the agent started."),
		applied: b.gauge("applied_revision", "Revision of the cluster that the kernel enforces. Less than "+
			"snapshot_revision after an error."),
		workloads: b.gauge("workloads", "Pods of this node that policies can select."),
		isolated:  b.gauge("isolated_workloads", "Pods of this node that a policy isolates in a direction or in both."),
		policies:  b.gauge("policies", "Policies that isolate a pod of this node."),
		diagnostics: b.gauges("policy_diagnostics", "Findings about users' objects. Severity error: a part cannot "+
			"be parsed and matches nothing.", "severity", cluster.Warning.String(), cluster.Error.String()),
		elements: b.gauge("set_elements", "Elements of all sets and maps in the kernel."),
		objects:  b.gauges("kernel_objects", "Objects in the kernel by type.", "type", "chain", "rule", "set"),
		repairs: b.counter("drift_repairs_total", "Differences in the kernel that this agent did not make and "+
			"repaired."),
	}
	m.addPackets(b)
	return m
}

// addPackets adds the metrics of packets, connections, limits and problems.
func (m *metrics) addPackets(b *builder) {
	m.drops = droppedPackets(b)
	m.cuts = b.counters("connections_cut_total", "Connections that were ended. ingress, egress: the policies of that "+
		"direction deny them now. reused: one of the addresses belongs to another pod now. gone: the pod was "+
		"deleted. Finished connections do not count.",
		"reason", "ingress", "egress", "reused", "gone")
	m.refused = b.gauge("connections_refused", "Connections that were cut and that the replying end cannot revive.")
	m.scans = b.counter("conntrack_scans_total",
		"Scans of the kernel's connection table for connections that a change "+
			"denies.")
	m.scanned = b.counter("conntrack_entries_scanned_total",
		"Entries of the connection table that these scans read.")
	m.scanSeconds = b.counter("conntrack_scan_seconds_total", "Time that these scans took.")
	m.entries = b.gauge("conntrack_entries", "Entries of the kernel's connection table, read once per verification; "+
		"0 where it cannot be read.")
	m.entriesLimit = b.gauge("conntrack_limit", "Size of the connection table (nf_conntrack_max); 0 for no bound, "+
		"and where it cannot be read.")
	m.used = b.gauges("limit_used_ratio", "Used part of a limit: 1 is all, and soft limits can be exceeded. "+
		"docs/limits.md has the figures.", "limit", limits()...)
	m.connected = b.laterGauges("source_connected", "1 while changes of the kind arrive as they happen; 0: the last "+
		"known state stays enforced. It stays 0 for nodes while the role allows only get: the own Node is then read "+
		"periodically.", "kind", feedKinds()...)
	m.heard = b.laterGauges("source_last_word_timestamp_seconds",
		"Unix time of the last list, event or bookmark of the kind; 0 "+
			"before it. API servers send a bookmark about once a minute.", "kind", feedKinds()...)
	m.problems = b.gauges("problems", "Problems of the node. Blocking true: policies are not fully enforced while it "+
		"lasts.", "blocking", "true", "false")
	m.open = b.gauge("node_open", "1 while the node is open on purpose (--open-node): no policy is enforced "+
		"on it.")
	m.withoutPod = b.gauge("interfaces_without_pod", "Interfaces that are closed because pods may be behind them, "+
		"while no pod is known there, counted at once; after 30 s a problem names them.")
	m.unsure = unsurePods(b)
	m.audited = b.gauge("audited_workloads", "Pods of this node that are open in a direction only because the "+
		"policies that select them are in audit mode.")
	m.wouldDeny = b.counters("audit_packets_total", "Packets that policies in audit mode would have denied, by the "+
		"direction of the policies. With --datapath=nat the first ones of connections.", "direction", "ingress",
		"egress")
	m.denied = newDeniedMetrics(b)
}

func unsurePods(b *builder) *prometheus.GaugeVec {
	return b.gauges("pods_unsure", "Addresses of pods of this node for which enforcement cannot be verified, "+
		"counted at once; after 30 s a problem names them. bypassed: packets of the interface do not traverse the "+
		"IP hooks. unreached: neither a route nor a bridge's port leads to it. unclear: a port has it that is not "+
		"trusted, and no route leads to it. contested: the port of its bridge is not trusted, so no port may use "+
		"it. elsewhere: its routes lead elsewhere. unbound: no port of its bridge has it. Of bypassed, unreached "+
		"and unclear only isolated pods count.", "missing", Unsures()...)
}

func droppedPackets(b *builder) *prometheus.CounterVec {
	return b.laterCounters("dropped_packets_total", "Packets dropped, by reason. "+
		"policy-ingress, policy-egress: no rule of the direction allows them. "+
		"unknown-pod: to an address that no known pod has. spoofed-source: from an address that its pod does not "+
		"have. invalid: of no valid connection, or with stacked VLAN tags. broadcast: to one pod, in a broadcast "+
		"frame. cut: they would revive a connection that was cut. Read from the kernel; absent until the first "+
		"reading.", "reason", dropReasons()...)
}

func (m *metrics) setOpen(open bool) {
	m.open.Set(0)
	if open {
		m.open.Set(1)
	}
}

// record counts a pass that ended at the given time.
func (m *metrics) record(p Pass, now time.Time) {
	m.applyDuration.WithLabelValues(kind(p.Full)).Observe(p.Elapsed.Seconds())
	m.snapshot.Set(float64(p.Revision))
	setDiagnostics(m.diagnostics, p.Diagnostics)
	if p.Err != nil {
		m.applies.WithLabelValues("error").Inc()
		return
	}
	m.applies.WithLabelValues("ok").Inc()
	m.lastApply.Set(float64(now.UnixMilli()) / 1000)
	m.applied.Set(float64(p.Revision))
	m.workloads.Set(float64(p.Pods))
	m.isolated.Set(float64(p.IsolatedPods))
	m.audited.Set(float64(p.AuditedPods))
	m.policies.Set(float64(p.Policies))
	m.elements.Set(float64(p.Elements))
	m.objects.WithLabelValues("chain").Set(float64(p.Chains))
	m.objects.WithLabelValues("rule").Set(float64(p.Rules))
	m.objects.WithLabelValues("set").Set(float64(p.Sets))
	m.repairs.Add(float64(p.Repairs))
}

func (m *metrics) addCuts(c Cuts) {
	m.cuts.WithLabelValues("ingress").Add(float64(c.Ingress))
	m.cuts.WithLabelValues("egress").Add(float64(c.Egress))
	m.cuts.WithLabelValues("reused").Add(float64(c.Reused))
	m.cuts.WithLabelValues("gone").Add(float64(c.Gone))
	m.refused.Set(float64(c.Refused))
	m.scans.Add(float64(c.Scans))
	m.scanned.Add(float64(c.Entries))
	m.scanSeconds.Add(c.Elapsed.Seconds())
}

func setDiagnostics(gauges *prometheus.GaugeVec, list []cluster.Diagnostic) {
	count := map[cluster.Severity]int{}
	for _, d := range list {
		count[d.Severity]++
	}
	for _, s := range []cluster.Severity{cluster.Warning, cluster.Error} {
		gauges.WithLabelValues(s.String()).Set(float64(count[s]))
	}
}

func (m *metrics) setProblems(problems map[string]Problem) {
	blocking := 0
	for _, p := range problems {
		if p.Blocking {
			blocking++
		}
	}
	m.problems.WithLabelValues("true").Set(float64(blocking))
	m.problems.WithLabelValues("false").Set(float64(len(problems) - blocking))
}

// feedKinds are all kinds that a source can read.
func feedKinds() []string {
	list := []string{cluster.Services.String(), cluster.EndpointSlices.String()}
	for _, k := range cluster.Kinds() {
		list = append(list, k.String())
	}
	slices.Sort(list)
	return append(list, manifests)
}

func (m *metrics) setFeeds(feeds []feed.Feed) {
	for _, f := range feeds {
		connected, heard := 0.0, 0.0
		if f.Connected {
			connected = 1
		}
		if !f.Heard.IsZero() {
			heard = float64(f.Heard.UnixMilli()) / 1000
		}
		m.connected.WithLabelValues(f.Kind).Set(connected)
		m.heard.WithLabelValues(f.Kind).Set(heard)
	}
}

// durations are the bounds of histograms, in seconds.
func durations() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}
