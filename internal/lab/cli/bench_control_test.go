// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/kubeapi"
)

// No figure is asserted: the test wants every row, each with something measured.
func TestBenchControlMeasuresEverything(t *testing.T) {
	api, err := kubeapi.Program()
	parts := "api,large,memory"
	switch {
	case errors.Is(err, kubeapi.ErrNotBuilt) && os.Getenv("CI") != "true":
		parts, api = "large,memory", ""
	case err != nil:
		t.Fatal(err)
	}
	status, out, stderr := commandLine(t, withAgentFlag("bench", "control", "--quick", "-o", "json", "--kubeapi", api, "--only", parts)...)
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	var r bench.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	measured := map[string]int{}
	for _, row := range r.Rows {
		kind, _, _ := strings.Cut(row.Section, ":")
		measured[kind]++
		// What the kernel and an idle agent take may be less than can be measured, and so may
		// the difference of two agents with nearly as many pods: such rows may be 0 or below.
		noise := strings.HasPrefix(row.Name, "kernel") || strings.Contains(row.Name, "idle") ||
			strings.HasPrefix(row.Name, "bytes for each further remote pod")
		if row.Value.Median <= 0 && !noise {
			t.Errorf("%s, %s: %v", row.Section, row.Name, row.Value)
		}
	}
	clusters := strings.Count(parts, ",") // all but memory
	want := map[string]int{"first sync": 3, "change to kernel, one at a time": 26, "change to kernel, 100 changes a second": 2, "processor": 6, "memory": 5}
	for kind, n := range want {
		if measured[kind] != clusters*n {
			t.Errorf("%s: %d rows, want %d", kind, measured[kind], clusters*n)
		}
	}
	if measured["memory over pods"] != 6 || len(r.Plots) != 1 || len(r.Plots[0].Lines) != 2 {
		t.Errorf("memory over pods: %d rows, plots %v; want 6 rows and one plot of 2 lines", measured["memory over pods"], r.Plots)
	}
}
