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

// The kube-proxy of the tests takes the place of the newer one, which takes minutes to build.
func TestBenchServicesMeasuresEveryProxy(t *testing.T) {
	proxy, err := testedProxy()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	status, out, stderr := commandLine(t, withAgentFlag("bench", "services", "--quick", "--rounds", "1",
		"--sizes", "10x2,20x2,10x3-ipv6-bridge",
		"-o", "json", "--out", dir, "--kube-proxy", proxy)...)
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	var r bench.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, row := range r.Rows {
		names[row.Name]++
		if row.Bar != nil {
			t.Errorf("%s, %s has a bar, though it measures nothing", row.Section, row.Name)
		}
	}
	const sizes, figures, kinds = 3, 11, 3
	// To Services and to a pod; what is added; next to plain DNAT; more Services next to fewer.
	program := sizes*(figures+2*kinds+2) + 1
	want := map[string]int{"podwall": program, "kube-proxy nftables": program, "kube-proxy iptables": program,
		"plain DNAT": sizes * (kinds + 1), "a pod, no proxy": sizes * kinds}
	for name, n := range want {
		if names[name] != n {
			t.Errorf("%d rows of %s, want %d", names[name], name, n)
		}
	}
	if len(names) != len(want) || len(r.Plots) != 1 || len(r.Plots[0].Lines) != 3 || len(r.Plots[0].Lines[0].Points) != 2 {
		t.Errorf("rows of %v, plots %+v", names, r.Plots)
	}
	if notes := strings.Join(r.Notes, " "); !strings.Contains(notes, "kube-proxy is v1.") {
		t.Errorf("notes %q", notes)
	}
	for _, name := range []string{"services.json", "services-first.svg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestBenchServicesRefusesWhatCannotBeMeasured(t *testing.T) {
	for _, tt := range [][2]string{{"--sizes=many", "SERVICESxENDPOINTS"}, {"--rounds=0", "1 or more"}, {"--output=xml", "unknown output"}} {
		status, _, stderr := commandLine(t, withAgentFlag("bench", "services", "--kube-proxy", "none", tt[0])...)
		if status == 0 || !strings.Contains(stderr, tt[1]) {
			t.Errorf("%s: exit status %d, %q", tt[0], status, stderr)
		}
	}
}
