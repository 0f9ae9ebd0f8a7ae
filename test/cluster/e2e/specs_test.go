// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
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
	want := []Spec{{Name: "Netpol allow-all", Status: "passed", Seconds: 21.5}, {Name: "Netpol deny", Status: "failed", Seconds: 200, Failure: "had 24 wrong results"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseSpecs([]byte("<testsuites>")); err == nil {
		t.Error("half a file is read without an error")
	}
}

func TestTheReportNamesWhatFailed(t *testing.T) {
	r := &Report{Combinations: []*Combination{{Name: "ptp + nftables",
		Specs:     []Spec{{Name: "good", Status: "passed"}, {Name: "bad", Status: "failed", Failure: "a | b\nc"}},
		Scenarios: []*Scenario{{Name: "update", Passed: true, Figures: []Figure{{"sent", 10, "packets"}}}}}}}
	if n := r.failures(); n != 1 {
		t.Errorf("%d failures are counted, want 1", n)
	}
	text := string(r.markdown())
	for _, want := range []string{"| ptp + nftables | 1 of 2 | 1 of 1 |", `| bad | **failed**: a \| b c |`, "| update | passed | 0 s | sent 10 packets |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if bytes.Contains(r.markdown(), []byte("Size of the image")) {
		t.Error("an image that was not there has a size")
	}
}
