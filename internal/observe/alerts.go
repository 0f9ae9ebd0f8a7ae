// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"io"
	"strings"
)

// alert is a rule of Prometheus. The documents, and the rules that the chart installs, are made from it.
type alert struct {
	name, expression string
	// lasts is how long the expression must hold; empty for at once.
	lasts    string
	severity severity
	meaning  string
}

// severity is the label by which Alertmanager routes.
type severity string

const (
	critical severity = "critical" // policies are not enforced somewhere
	warning  severity = "warning"  // they will not be, or somebody has to look
	info     severity = "info"
)

func alerts() []alert {
	return append(nodeAlerts(), []alert{
		{"PodwallSourceDisconnected", "max_over_time(" + prefix + "source_connected[5m]) == 0", "", warning,
			"Changes of a kind have not arrived for five minutes; the last known state stays enforced. `/statusz` " +
				"has the cause."},
		{"PodwallSourceSilent", "time() - " + prefix + "source_last_word_timestamp_seconds{kind!=\"manifests\"} > 900",
			"", warning, "No list, event or bookmark of a kind for a quarter of an hour, although a watch is open."},
		{"PodwallAPIServerRefuses",
			"increase(" + prefix + `source_errors_total{reason=~"forbidden|unauthorized"}[5m]) > 0`, "10m", warning,
			"The API server refuses the agent; its log has the cure. A server that has just started refuses all " +
				"clients for a moment."},
		{"PodwallPolicyNotUnderstood", prefix + `policy_diagnostics{severity="error"} > 0`, "5m", warning,
			"A part of a policy cannot be parsed and matches nothing; `/statusz` names it."},
		{"PodwallDrift", "increase(" + prefix + "drift_repairs_total[1h]) > 0", "", warning,
			"Another program changes podwall's objects in the kernel."},
		{"PodwallNearLimit", prefix + "limit_used_ratio >= 0.8", "10m", warning, "The node is close to a limit; " +
			"`/statusz` names what fills it, and `docs/limits.md` has what happens above."},
		{"PodwallDeniedFlowsLost", "increase(" + prefix + `denied_packets_recorded_total{result="lost"}[10m]) > 0`,
			"", info, "Denied packets came faster than they could be recorded; `docs/flows.md` has the rates."},
		{"PodwallPodsAudited", prefix + "audited_workloads > 0", "24h", info,
			"Pods have been open for a day only because policies are in audit mode; `kubectl podwall audit` names " +
				"them."},
	}...)
}

// nodeAlerts are those of nodes on which policies are not enforced, or may not be.
func nodeAlerts() []alert {
	return []alert{
		{"PodwallAbsent", "absent(" + prefix + "build_info)", "10m", critical,
			"No agent is scraped at all: none runs, or its metrics are not found."},
		{"PodwallNotReady", prefix + "ready == 0", "5m", critical,
			"The node does not enforce everything; `/readyz` and `/statusz` have the reasons."},
		{"PodwallBlockingProblem", prefix + `problems{blocking="true"} > 0`, "1m", critical,
			"A problem of the node prevents enforcement of policies; `/statusz` has the cure."},
		{"PodwallChangesNotEnforced", prefix + "snapshot_revision > " + prefix + "applied_revision", "2m", critical,
			"Changes are seen but not enforced; passes fail."},
		{"PodwallNoPass", "time() - " + prefix + "last_apply_timestamp_seconds > 1200", "", critical,
			"No pass has succeeded for 20 minutes; take four times `--iptables-sync-period`."},
		{"PodwallPodsUnsure", "sum without (missing) (" + prefix +
			`pods_unsure{missing=~"bypassed|unclear|unreached"}) > 0`, "1m", critical,
			"Traffic of isolated pods may bypass the rules; `/statusz` names them after 30 s."},
		{"PodwallNodeOpen", prefix + "node_open > 0", "", warning, "The node was opened in an emergency and is not " +
			"closed yet; `/statusz` has the reason, docs/emergency.md the way back."},
	}
}

// referenceAlerts is the table of the reference page.
func referenceAlerts() string {
	var b strings.Builder
	b.WriteString("\n## What to alert on\n\nThe chart installs these rules with `metrics.prometheusRule.enabled`; " +
		"without the Prometheus\noperator take `deploy/chart/podwall/files/alerts.yaml` as a file of rules.\n\n" +
		"| alert | expression | for | severity | meaning |\n|---|---|---|---|---|\n")
	for _, a := range alerts() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", a.name, a.expression, a.lasts, a.severity, a.meaning)
	}
	return b.String()
}

// Alerts writes the rules as Prometheus reads them. A test compares the committed file with it.
func Alerts(out io.Writer) error {
	var b strings.Builder
	b.WriteString("# Made from internal/observe. Change it there, then run: go test ./internal/observe -update\n" +
		"groups:\n  - name: podwall\n    rules:\n")
	for _, a := range alerts() {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: %s\n", a.name, quoted(a.expression))
		if a.lasts != "" {
			fmt.Fprintf(&b, "        for: %s\n", a.lasts)
		}
		fmt.Fprintf(&b, "        labels:\n          severity: %s\n        annotations:\n          summary: %s\n",
			a.severity, quoted(strings.ReplaceAll(a.meaning, "`", "")))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// quoted is a text in the quotes of YAML that need no escapes but for themselves.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
