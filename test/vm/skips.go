// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed skips.txt
var skipsText string

// skip is a test that is not run in a machine, and why.
type skip struct {
	Release, Suite, Test, Reason string // Release is * for all of them
}

// readSkips reads lines of the form "RELEASE SUITE TEST REASON…".
func readSkips(text string) ([]skip, error) {
	var list []skip
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 5 {
			return nil, fmt.Errorf("reading skips.txt: %q has no release, suite, test and reason", line)
		}
		if f[0] != "*" && !slices.Contains(allReleases(), f[0]) {
			return nil, fmt.Errorf("reading skips.txt: %q is for no known release", line)
		}
		list = append(list, skip{f[0], f[1], f[2], strings.Join(f[3:], " ")})
	}
	return list, nil
}

// chosen returns what is skipped of a suite on a release.
func chosen(all []skip, release, suite string) []skip {
	var list []skip
	for _, k := range all {
		if (k.Release == "*" || k.Release == release) && k.Suite == suite {
			list = append(list, k)
		}
	}
	return list
}

// pattern is the argument of -test.skip: exactly these tests.
func pattern(list []skip) string {
	var parts []string
	for _, k := range list {
		parts = append(parts, "^"+strings.ReplaceAll(k.Test, "/", "$/^")+"$")
	}
	return strings.Join(parts, "|")
}
