// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpecsAreReadFromTheFileThatTheyLeave(t *testing.T) {
	got, err := parseSpecs([]byte(`<?xml version="1.0"?><testsuites><testsuite name="e2e">
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="0.1"></testcase>
<testcase name="[It] [sig-network] Netpol allow-all" status="passed" time="21.5"></testcase>
<testcase name="[It] [sig-network] Netpol deny" status="failed" time="200"><failure message="had 24 wrong results" type="failed">a lot</failure></testcase>
<testcase name="[It] [sig-network] DNS" status="skipped" time="0"></testcase>
</testsuite></testsuites>`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Spec{{Name: "Netpol allow-all", Status: "passed", Seconds: 21.5},
		{Name: "Netpol deny", Status: "failed", Seconds: 200, Failure: "had 24 wrong results"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseSpecs([]byte("<testsuites>")); err == nil {
		t.Error("half a file is read without an error")
	}
}

func TestTheReportNamesWhatFailed(t *testing.T) {
	run := &Run{Began: "b", Image: "abc", Commit: "def", LoadBegin: 1, LoadEnd: 7.25, Agents: []Agent{{Node: "node1", MemoryMiB: 30}}}
	r := &Report{Runs: []*Run{{Began: "a"}, run}, Combinations: []*Combination{{Name: "ptp nftables",
		Specs: []Spec{{Run: "b", Name: "good", Status: "passed"}, {Run: "b", Name: "bad", Status: "failed", Failure: "a | b\nc"},
			{Run: "a", Name: "older", Status: "failed"}},
		Scenarios: []*Scenario{{Run: "b", Name: "update", Passed: true, Figures: []Figure{{"sent", 10, "packets"}},
			Series: []Series{{"upgrade", 5, 1, 7, 2}}}}}}}
	text := string(r.markdown())
	for _, want := range []string{"| ptp nftables | 1 | 2 | 44 | 1 | 0 | ", `| bad | **failed**: a \| b c | 2 |`,
		"| older | **failed**:  | 1 | 0 s |", "| update | passed | 2 | 0 s | sent 10 packets |",
		"| abc | def | 1.0, 7.2 |", "| update: upgrade | 5 | 1 | 7 | 2 |",
		"| 2 | node1 | 0 s | 0.0 s | 30 MiB |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if bytes.Contains(r.markdown(), []byte("Size of the image")) {
		t.Error("an image that was not there has a size")
	}
}

// A run that was cut short, or that tried a part again, replaces its rows and
// leaves the others with the run that found them.
func TestAReportIsPutTogetherFromSeveralRuns(t *testing.T) {
	dir := t.TempDir()
	name := plans()[0].name
	for _, rows := range []struct {
		run              string
		specs, scenarios []string
	}{
		{"1", []string{"b", "c"}, []string{"update of the DaemonSet", "drain"}},
		{"2", []string{"c"}, []string{"drain"}},
		{"3", []string{"b", "a"}, []string{"init containers", "a scenario that is gone"}},
	} {
		f := &found{run: &Run{Began: rows.run, Combination: name}}
		for _, s := range rows.specs {
			f.specs = append(f.specs, Spec{Name: s, Status: "passed"})
		}
		for _, s := range rows.scenarios {
			f.scenarios = append(f.scenarios, &Scenario{Name: s, Passed: true})
		}
		for range 2 { // it is saved more than once
			if err := f.save(dir, func(*Report) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := readReport(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []*Combination{{Name: name,
		Specs: []Spec{{Run: "3", Name: "a", Status: "passed"}, {Run: "3", Name: "b", Status: "passed"},
			{Run: "2", Name: "c", Status: "passed"}},
		Scenarios: []*Scenario{{Run: "3", Name: "init containers", Passed: true},
			{Run: "1", Name: "update of the DaemonSet", Passed: true}, {Run: "2", Name: "drain", Passed: true}}}}
	if diff := cmp.Diff(want, r.Combinations); diff != "" {
		t.Error(diff)
	}
	if len(r.Runs) != 3 {
		t.Errorf("%d runs are kept, want 3", len(r.Runs))
	}
	copied := t.TempDir()
	if err := mergeReports(copied, dir); err != nil {
		t.Fatal(err)
	}
	if other, err := readReport(copied); err != nil || !cmp.Equal(r, other, cmp.AllowUnexported(Run{})) {
		t.Errorf("%v; merged into an empty report:\n%s", err, cmp.Diff(r, other, cmp.AllowUnexported(Run{})))
	}
	r.add(&found{run: &Run{Began: "4", Combination: name}, scenarios: []*Scenario{{Name: "update of the DaemonSet"}}})
	if len(r.Runs) != 3 || r.Runs[0].Began != "2" {
		t.Errorf("%+v: the run is kept that has no row any more", r.Runs)
	}
}

func TestWhatHasPassedCanBeLeftOut(t *testing.T) {
	passed := passedOf(&Combination{Specs: []Spec{{Name: "a (b)", Status: "passed"}, {Name: "c", Status: "failed"}},
		Scenarios: []*Scenario{{Name: "drain", Passed: true}, {Name: "reboot"}}})
	if !passed["drain"] || passed["reboot"] || passed["c"] {
		t.Errorf("%v", passed)
	}
	skip := regexp.MustCompile(skipped(passed, ""))
	for name, want := range map[string]bool{"[sig-network] Netpol a (b)": true, "[sig-network] Netpol a (b) more": false,
		"[sig-network] Netpol c": false, "SCTPConnectivity x": true} {
		if got := skip.MatchString(name); got != want {
			t.Errorf("%q is left out: %t, want %t", name, got, want)
		}
	}
}

func TestDifferencesOfANode(t *testing.T) {
	before := map[string]string{"same": "1", "changed": "1", "empty": "", "gone": "1"}
	got := differences(before, map[string]string{"same": "1", "changed": "2", "new": "3"})
	want := []string{`changed was "1" (true), is "2" (true)`, `empty was "" (true), is "" (false)`,
		`gone was "1" (true), is "" (false)`, `new was "" (false), is "3" (true)`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatFailedIsCounted(t *testing.T) {
	f := &found{run: &Run{Error: "ended early"}, specs: []Spec{{Status: "passed"}, {Status: "failed"}, {Status: "timedout"}},
		scenarios: []*Scenario{{Passed: true}, {}}}
	if n := f.failures(); n != 4 {
		t.Errorf("%d failures are counted, want 4", n)
	}
}

func TestEachRunNamesItsMachine(t *testing.T) {
	r := &Report{}
	for i, kernel := range []string{"6.6.6", "5.5.5", "6.6.6"} {
		r.add(&found{run: &Run{Began: fmt.Sprint(i), Combination: plans()[0].name, Machine: Machine{Kernel: kernel}},
			specs: []Spec{{Name: fmt.Sprint(i), Status: "passed"}}})
	}
	text := string(r.markdown())
	for _, want := range []string{"machine 1: , kernel 6.6.6,", "machine 2: , kernel 5.5.5,", "| 2 | ptp nftables | 2 | 1 |",
		"| 3 | ptp nftables | 1 | 2 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
}

func TestAnImageNamesItsCommit(t *testing.T) {
	write := func(files map[string]string) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, text := range files {
			err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}),
				func() error { _, err := w.Write([]byte(text)); return err }())
			if err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := errors.Join(w.Close(), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const manifest = `[{"Config": "c"}]`
	got, err := revision(write(map[string]string{
		"c":             `{"config": {"Labels": {"org.opencontainers.image.revision": "0123456789abcdef"}}}`,
		"manifest.json": manifest}))
	if err != nil || got != "0123456789ab" {
		t.Errorf("%q, %v; want the first twelve digits", got, err)
	}
	for what, files := range map[string]map[string]string{"no label": {"c": `{}`, "manifest.json": manifest},
		"no configuration": {"manifest.json": manifest}, "no manifest": {"c": "{}"}} {
		if got, err := revision(write(files)); err == nil {
			t.Errorf("%s: %q, want an error", what, got)
		}
	}
}

func TestANameThatNoCombinationHasIsRefused(t *testing.T) {
	for _, name := range []string{"run", "up"} {
		err := command(t.Context(), []string{name, "-only", "^token ring$", "-out", t.TempDir()})
		if !errors.Is(err, errNone) {
			t.Errorf("%s: %v, want %v", name, err, errNone)
		}
	}
}

// docs/e2e.md has regular expressions that end with a dollar sign, which make expands.
func TestMakePassesTheCommandLineOnAsItIs(t *testing.T) {
	const line = "run -only '^ptp nftables$' -scenarios '^drain$'"
	out, err := exec.CommandContext(t.Context(), "make", "-n", "-C", "../../..", "e2e", "E2E="+line).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "bin/podwall-e2e "+line+"\n") {
		t.Errorf("%v, want a call with %s in\n%s", err, line, out)
	}
}
