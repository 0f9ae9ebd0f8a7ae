// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/netpol/denied"
)

// report is testdata/seen.json after a change.
func report(t *testing.T, change func(*flowsReport)) string {
	t.Helper()
	text, err := os.ReadFile("testdata/seen.json")
	if err != nil {
		t.Fatal(err)
	}
	var r flowsReport
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	change(&r)
	if text, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "seen.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Records that may not be all make no policy.
func TestGenerateRefusesRecordsWithGaps(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*flowsReport)
		says   string
	}{
		"packets without a record": {func(r *flowsReport) { r.Nodes[1].Suppressed = 3 }, "node node2: 3 packets have no record"},
		"records that gave way": {func(r *flowsReport) { r.Nodes[0].ForgottenTo, r.Nodes[0].Forgotten = r.Query.To, 2 },
			"node node1: records reach back to 2026-11-30T10:00:00Z only (2 older ones are"},
		"a young agent":        {func(r *flowsReport) { r.Nodes[0].Since = r.Query.To }, "it records since then"},
		"nothing recorded":     {func(r *flowsReport) { r.Nodes[0].Recording, r.Nodes[0].Why = false, "off" }, "it records nothing: off"},
		"a node without agent": {func(r *flowsReport) { r.Nodes = r.Nodes[:1] }, "node node2 has pods, and no agent that answered"},
		"no node":              {func(r *flowsReport) { r.Nodes = nil }, "no node answered"},
		"a node that failed": {func(r *flowsReport) {
			r.Nodes, r.Failed = r.Nodes[:1], []nodeFailure{{"node2", "no route"}}
		}, "node node2 does not answer: no route"},
		"a limit":           {func(r *flowsReport) { r.LeftOut = 7 }, "7 flows are left out"},
		"another namespace": {func(r *flowsReport) { r.Query.All, r.Query.Namespace = false, "batch" }, "ask with -n shop, or -A"},
		"one verdict only":  {func(r *flowsReport) { r.Query.Verdict = "would-deny" }, "only those of --verdict would-deny"},
		"one pod only":      {func(r *flowsReport) { r.Query.Pod = "web" }, "only those of POD web"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, said := commandLine(t, "generate", "-f", "testdata/audited.yaml", "-n", "shop",
				"--flows", report(t, c.change))
			said = strings.Join(strings.Fields(said), " ")
			if status != statusNo || out != "" || !strings.Contains(said, c.says) || !strings.Contains(said, "refused: ") {
				t.Errorf("status %d, out %q, said %q", status, out, said)
			}
		})
	}
}

func TestGenerateFromFiles(t *testing.T) {
	whole := report(t, func(r *flowsReport) { r.Flows = r.Flows[:2] })
	for name, c := range map[string]struct {
		args   string
		status int
		out    string
		said   string
	}{
		"all":              {"-n shop --flows " + whole, 0, "name: seen-web\n", ""},
		"one workload":     {"shop/web --flows " + whole, 0, "name: seen-web\n", ""},
		"one pod":          {"-n shop web-1 --flows " + whole, 0, "app: scraper\n", ""},
		"JSON":             {"-A -o json --flows " + whole, 0, `"kind": "List"`, ""},
		"a node":           {"-n shop --flows testdata/seen.json", statusNotWritten, "name: seen-web\n", "left out: node node1"},
		"nothing was seen": {"-n metrics --flows " + whole, statusUsage, "", "nothing to write"},
		"no flows":         {"-n shop", statusUsage, "", "files say nothing about traffic"},
		"other lines":      {"-n shop --flows testdata/kubeconfig.yaml", statusUsage, "", "without --follow"},
		"another form":     {"-n shop -o text --flows " + whole, statusUsage, "", `unknown output "text"`},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, said := commandLine(t, append([]string{"generate", "-f", "testdata/audited.yaml"},
				strings.Fields(c.args)...)...)
			said = strings.Join(strings.Fields(said), " ")
			if status != c.status || !strings.Contains(out, c.out) || c.out == "" && out != "" ||
				!strings.Contains(said, c.said) {
				t.Errorf("status %d, out %q, said %q", status, out, said)
			}
		})
	}
}

// What agents answer is checked in the same way, and reaches the policies.
func TestGenerateAsksTheAgents(t *testing.T) {
	would := flow("n1", "metrics/scraper", "shop/web-0", 1, "shop/all")
	would.Verdict = denied.WouldDeny
	whole := denied.Summary{Recording: true, Since: time.Unix(0, 0)}
	gap, old := whole, whole
	gap.Suppressed, old.Suppressed = 1, 1
	old.SuppressedTo = time.Now().Add(-2 * time.Hour)
	for i, s := range []denied.Summary{whole, old, gap} {
		c := &generateCommand{source: newSource(Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}), since: time.Hour,
			agents: &fakeAgents{pods: []agentPod{node("n1")}, answers: map[string]string{"n1": answerOf(s, would)}}}
		r, err := c.seen(t.Context())
		if err != nil || len(r.Flows) != 1 || !r.Query.All || r.Query.To.Sub(r.Query.From) > time.Hour ||
			len(r.gaps()) != i/2 {
			t.Errorf("%+v, gaps %v: %v", r, r.gaps(), err)
		}
	}
}

// The answer of flows says what it is an answer to.
func TestFlowsSayWhatWasAsked(t *testing.T) {
	out, _, _ := askFlows(t.Context(), t, threeNodes(), "--policy", "web", "--limit", "1", "-o", "json", "--since", "1h")
	var r flowsReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	want := flowsQuery{From: r.Query.From, To: r.Query.To, Namespace: "shop", Policy: "shop/web"}
	if r.Query != want || r.Query.To.IsZero() || r.LeftOut == 0 {
		t.Errorf("query %+v, %d left out", r.Query, r.LeftOut)
	}
}
