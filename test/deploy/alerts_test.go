// SPDX-License-Identifier: Apache-2.0

//go:build linux

package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const monitoring = "../../deploy/chart/podwall/files/"

// promtool runs Prometheus's own tool.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing: run `make prepare`")
		}
		t.Skip("promtool is missing: run `make prepare`")
	}
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Every alert fires when it should, and not when all is well.
func TestAlertsFire(t *testing.T) {
	promtool(t, "check", "rules", monitoring+"alerts.yaml")
	rules, err := os.ReadFile(monitoring + "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("testdata/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		if n := strings.Count(string(cases), "alertname: "+m[1]+"\n"); n < 2 {
			t.Errorf("testdata/alerts_test.yaml has %d tests of %s, want one that fires and one that does not", n, m[1])
		}
	}
	promtool(t, "test", "rules", "testdata/alerts_test.yaml")
}

// Prometheus reads every query of the dashboard, and each panel has one, a title and a description.
func TestTheDashboardsQueriesAreRead(t *testing.T) {
	text, err := os.ReadFile(monitoring + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title, Description string
			Targets            []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	queries := 0
	for _, p := range board.Panels {
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %+v", p)
		}
		for _, q := range p.Targets {
			queries++
			fmt.Fprintf(&rules, "      - record: q%d\n        expr: '%s'\n", queries, strings.ReplaceAll(q.Expr, "$node", ".*"))
		}
	}
	if queries < 15 {
		t.Errorf("%d queries", queries)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
