// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab"
)

// openWhenDenied is what the example that denies all ingress leaves open.
func openWhenDenied(f flow) bool { return examples()[1].open(f) }

func (w *world) denyIngress() {
	w.t.Helper()
	w.createPolicy(w.example("2-deny-ingress"))
}

func TestAgentWaitsForAServerThatIsAway(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	w.denyIngress()
	w.stopServer()
	a := w.agent("node1")

	a.answers("/healthz", http.StatusOK)
	why := a.answers("/readyz", http.StatusServiceUnavailable)
	if !strings.Contains(why, "waiting for the first complete list of namespaces, pods, networkpolicies, nodes") {
		t.Errorf("/readyz says %q, want what is waited for", why)
	}
	a.await("cause in /readyz", func() bool {
		_, why = a.Get("/readyz")
		return strings.Contains(why, "namespaces, pods, networkpolicies, nodes: the API server cannot be reached: ")
	})
	if !a.says("the API server cannot be reached") {
		t.Error("the log does not say what is wrong")
	}
	w.stays("the server is away")
	if table := w.table("node1"); table != "" {
		t.Errorf("there is a table before the first sync:\n%s", table)
	}

	w.restartServer()
	a.ready()
	w.now = openWhenDenied
	w.stays("ready")
}

func TestAgentGivesUpOnAServerThatStaysAway(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	w.denyIngress()
	a := w.agent("node1").ready()
	w.becomes("ready", openWhenDenied)
	a.Stop()
	w.stopServer()
	table, generation := w.table("node1"), w.generation("node1")
	if table == "" {
		t.Fatal("the agent took its table away when it stopped")
	}

	b := w.agent("node1", "--cache-sync-timeout=2s")
	b.answers("/healthz", http.StatusOK)
	b.answers("/readyz", http.StatusServiceUnavailable)
	w.stays("the next agent waits")
	b.Exits(1)
	b.complains("no complete list of [namespaces pods networkpolicies nodes] after 2s: namespaces, pods, networkpolicies, nodes: the API server cannot be reached: ")
	w.stays("the next agent gave up")
	if now := w.table("node1"); now != table || w.generation("node1") != generation {
		t.Errorf("the agent that gave up changed nftables:\n%s\nbefore:\n%s", now, table)
	}
}

func TestAgentThatIsStoppedBeforeTheFirstSyncLeavesTheRules(t *testing.T) {
	w := newSmallWorld(t, lab.Bridge)
	w.denyIngress()
	a := w.agent("node1").ready()
	w.becomes("ready", openWhenDenied)
	a.Stop()
	w.stopServer()
	generation := w.generation("node1")
	for range 6 { // what went wrong here once did so every second time
		b := w.agent("node1")
		b.answers("/healthz", http.StatusOK)
		b.Stop()
	}
	w.stays("agents came and went")
	if now := w.generation("node1"); now != generation {
		t.Errorf("agents that knew nothing committed %d transactions, want none", now-generation)
	}
}

func TestEnforcementGoesOnWithoutTheServer(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	w.denyIngress()
	a := w.agent("node1", "--metrics-port=20244").ready()
	w.becomes("ready", openWhenDenied)

	w.stopServer()
	a.await("metrics of a lost source", func() bool {
		_, text := a.Get("/metrics")
		return strings.Contains(text, "podwall_source_connected{kind=\"pods\"} 0\n") &&
			strings.Contains(text, "podwall_source_errors_total{reason=\"unreachable\"} ") &&
			!strings.Contains(text, "podwall_source_errors_total{reason=\"unreachable\"} 0\n")
	})
	a.await("log line", func() bool { return a.says("the API server cannot be reached") })
	w.stays("the server went away")
	a.await("feeds that are not connected", func() bool { return a.connected(false) })
	for _, page := range []string{"/healthz", "/readyz"} {
		if code, body := a.Get(page); code != http.StatusOK {
			t.Errorf("%s answers %d %q while the server is away, want 200: what is known is enforced", page, code, body)
		}
	}

	w.restartServer()
	w.stays("the server is back")
	a.await("feeds that are connected", func() bool { return a.connected(true) })
	w.deletePolicy(w.example("2-deny-ingress"))
	w.becomes("a change after the server is back", everything)
}

// connected reports whether the status page says so of every kind, or of none.
func (a *agent) connected(want bool) bool {
	a.t.Helper()
	for _, f := range a.status().Feeds {
		if f.Connected != want || f.LastWord == nil || (f.Error == "") != want {
			return false
		}
	}
	return true
}
