// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Result is what a suite said on a kernel. Tests with parts count as their parts.
type Result struct {
	Release string    `json:"release"`
	Kernel  string    `json:"kernel"`
	Suite   string    `json:"suite"`
	Part    string    `json:"part,omitempty"` // a pattern; empty if all tests were run
	Commit  string    `json:"commit"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"` // of the last try, with the boot
	Tries   int       `json:"tries"`
	Passed  int       `json:"passed"`
	Failed  []string  `json:"failed"`
	Skipped []Skipped `json:"skipped"`
	// Mended failed, and passed in a later run of a part of the suite.
	Mended []Mended `json:"mended,omitempty"`

	passed []string
}

// Mended is a test that failed, and the commit at which it passed.
type Mended struct {
	Test   string `json:"test"`
	Commit string `json:"commit"`
}

// Skipped is a test that did not run, and why.
type Skipped struct {
	Test   string `json:"test"`
	Reason string `json:"reason"`
}

// bad says whether something failed, or nothing passed.
func (r *Result) bad() bool { return len(r.Failed) > 0 || r.Passed == 0 }

func (r *Result) line() string {
	text := fmt.Sprintf("%-28s %-10s %4d passed %3d failed %3d skipped %5.0f s",
		r.Kernel, r.Suite, r.Passed, len(r.Failed), len(r.Skipped), r.Seconds)
	if r.Tries > 1 {
		text += fmt.Sprintf(", in try %d", r.Tries)
	}
	return text
}

// take reads the output of a test program that was run with -test.v.
func (r *Result) take(out string, status int) {
	r.Passed, r.Failed, r.Skipped, r.passed = 0, nil, nil, nil
	states := readStates(out)
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if isParent(states, name) {
			continue
		}
		switch state := states[name]; state {
		case "PASS":
			r.Passed++
			r.passed = append(r.passed, name)
		case "SKIP":
			r.Skipped = append(r.Skipped, Skipped{name, reason(out, name)})
		case "RUN":
			r.Failed = append(r.Failed, name+" (did not end)")
		default:
			r.Failed = append(r.Failed, name)
		}
	}
	if status != 0 && len(r.Failed) == 0 {
		r.Failed = append(r.Failed, fmt.Sprintf("no test (%s)", told(status)))
	}
}

func told(status int) string {
	if status == noStatus {
		return "the machine ended without a status"
	}
	return fmt.Sprintf("exit status %d", status)
}

// readStates returns the last state of each test. One that failed stays so: the
// output of a test in a process of its own may be within that of another.
func readStates(out string) map[string]string {
	states := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ *(?:=== (RUN) +|--- (PASS|FAIL|SKIP): )(\S+)`).FindAllStringSubmatch(
		out, -1) {
		if states[m[3]] != "FAIL" {
			states[m[3]] = m[1] + m[2]
		}
	}
	return states
}

// isParent says whether a test has parts that tell more than it does. One that
// failed by itself, with no part that did, is not.
func isParent(states map[string]string, name string) bool {
	parts, failed := false, false
	for other, state := range states {
		if strings.HasPrefix(other, name+"/") {
			parts = true
			failed = failed || state == "FAIL" || state == "RUN"
		}
	}
	return parts && (failed || states[name] == "PASS" || states[name] == "SKIP")
}

// reason is the last line that a test printed before it was skipped.
func reason(out, name string) string {
	before, _, _ := strings.Cut(out, "--- SKIP: "+name+" ")
	lines := strings.Split(strings.TrimSpace(before), "\n")
	last := lines[len(lines)-1]
	if m := regexp.MustCompile(`^\s*\S+\.go:\d+: (.*)$`).FindStringSubmatch(last); m != nil {
		return m[1]
	}
	return "it does not say why"
}
