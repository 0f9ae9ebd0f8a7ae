// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// agentVariable names the podwall-agent that is tested.
const agentVariable = entry.AgentVariable

// TestMain runs the tests in a world of their own, with a fresh agent. It plays
// the meter's process when it is asked to.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == meterCommand {
		os.Exit(Run(context.Background(), "test", os.Args[1:], Streams{Out: os.Stdout, Err: os.Stderr}))
	}
	entry.Main(m, entry.FreshAgent("../../../cmd/podwall-agent"))
}

// commandLine runs a command line and returns its exit status, stdout and stderr.
func commandLine(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = Run(t.Context(), "test", args, Streams{Out: &out, Err: &err})
	return status, out.String(), err.String()
}

func withAgentFlag(args ...string) []string {
	return append(args, "--agent", os.Getenv(agentVariable))
}

func TestTheDemoPassesOnBothWirings(t *testing.T) {
	status, out, stderr := commandLine(t, withAgentFlag("demo", "-o", "json")...)
	if status != 0 {
		t.Errorf("exit status %d\n%s", status, stderr)
	}
	var r demoReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Schema != demoSchema || !r.Pass || len(r.Differences) > 0 {
		t.Errorf("schema %q, pass %t, differences %v", r.Schema, r.Pass, r.Differences)
	}
	var numbers []int
	for _, row := range r.Table {
		numbers = append(numbers, row.Row)
		for _, res := range row.Results {
			if res.Result != "Pass" || res.Packets == 0 {
				t.Errorf("row %d: %+v", row.Row, res)
			}
		}
		if len(row.Results) != 2 {
			t.Errorf("row %d has %d results, want one for each wiring", row.Row, len(row.Results))
		}
	}
	if !slices.Equal(numbers, []int{1, 2, 3, 4, 5, 6, 0}) {
		t.Errorf("rows %v, want six and the one beside", numbers)
	}
	if got := uint64(r.Packets.Sent); got != uint64(r.Packets.Arrived)+r.Packets.Dropped {
		t.Errorf("packets %+v do not add up", r.Packets)
	}
}

func TestTheDemoIsPlainTextWhenPiped(t *testing.T) {
	status, out, stderr := commandLine(t, withAgentFlag("demo", "--wiring", "routed")...)
	if status != 0 {
		t.Fatalf("exit status %d\n%s\n%s", status, out, stderr)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("escape codes in plain output")
	}
	for _, part := range []string{"Example 5", "[✗]", "[4]", "The functional table", "All pass: 7000 packets sent"} {
		if !strings.Contains(out, part) {
			t.Errorf("the output does not say %q:\n%s", part, out)
		}
	}
}

func TestCheckPrintsLeaksAndBlocksAndFails(t *testing.T) {
	text, err := os.ReadFile("../../../testdata/cases/recipes.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	var step map[string]any
	if err := json.Unmarshal([]byte(first), &step); err != nil {
		t.Fatal(err)
	}
	// Turned around: what should pass should not, and so on.
	for _, p := range step["probes"].([]any) {
		rows := p.(map[string]any)["expected"].([]any)
		for i, row := range rows {
			rows[i] = strings.NewReplacer("0", "1", "1", "0").Replace(row.(string))
		}
	}
	wrong, err := json.Marshal(step)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "wrong.jsonl")
	if err := os.WriteFile(file, wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, backend := range []string{"oracle", "program", "kernel"} {
		args := []string{"check", "--backend", backend, file}
		status, out, stderr := commandLine(t, withAgentFlag(args...)...)
		if status != statusDiffers || !strings.Contains(out, "LEAK  recipe-01") || !strings.Contains(out, "BLOCK recipe-01") {
			t.Errorf("%s: exit status %d\n%s\n%s", backend, status, out, stderr)
		}
	}
}

func TestCheckWritesWhatItObserved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "observed.jsonl")
	status, out, stderr := commandLine(t, withAgentFlag("check", "--every", "6", "-o", file, "../../../testdata/cases/recipes.jsonl")...)
	if status != 0 || !strings.Contains(out, "3 steps") {
		t.Fatalf("exit status %d\n%s\n%s", status, out, stderr)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines != 3 || !bytes.Contains(text, []byte(`"observed":["1`)) {
		t.Errorf("%d lines observed, want 3:\n%s", lines, text)
	}
}
