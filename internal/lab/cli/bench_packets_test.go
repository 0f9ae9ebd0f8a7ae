// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/bench"
)

func TestBenchPacketsWritesItsReportAndPlots(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	status, out, stderr := commandLine(t, withAgentFlag("bench", "packets", "pods", "--quick", "--out", dir)...)
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	text, err := os.ReadFile(filepath.Join(dir, "packets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Command != "podwall-lab bench packets --quick=true pods" || r.Version != "test" || r.Machine.Kernel == "" || len(r.Plots) != 1 {
		t.Errorf("report of %q, version %q, on %+v, %d plots", r.Command, r.Version, r.Machine, len(r.Plots))
	}
	sections := map[string]int{}
	for _, row := range r.Rows {
		sections[row.Section]++
		if !strings.Contains(out, row.Name) {
			t.Errorf("the table does not show %q", row.Name)
		}
	}
	if len(sections) != 5 {
		t.Errorf("sections %v, want five", sections)
	}
	for _, name := range []string{"packets-pods.svg", "packets-pods.png"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() < 5000 {
			t.Errorf("plot %s: %v, %v", name, info, err)
		}
	}
}
