// SPDX-License-Identifier: Apache-2.0

// Package baseline holds costs against the ones that are written in a file of the
// repository: messages, bytes, elements, allocations, and never times. A cost
// that grew fails a test, one that shrank asks for a new file. It is called by
// tests and measures nothing itself.
package baseline

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Cost is something counted. Margin is by which part more is still no growth,
// for what no two runs count alike.
type Cost struct {
	Count  float64
	Margin float64
}

// Check compares the costs with a file below testdata, one "name count" a line.
// With the flag -update of the test program it writes the file anew. A cost that
// shrank by more than a fifth and its margin is said too, so that the file
// follows.
func Check(t *testing.T, file string, costs map[string]Cost) {
	t.Helper()
	name := filepath.Join("testdata", file)
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := write(name, costs); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; make golden writes it", err)
	}
	for _, problem := range compare(string(text), costs) {
		t.Errorf("%s: %s", name, problem)
	}
}

func write(name string, costs map[string]Cost) error {
	var b strings.Builder
	for _, cost := range slices.Sorted(maps.Keys(costs)) {
		fmt.Fprintf(&b, "%s %.0f\n", cost, costs[cost].Count)
	}
	return os.WriteFile(name, []byte(b.String()), 0o644)
}

// shrunk is the part of a cost below which the file is old.
const shrunk = 0.8

func compare(text string, costs map[string]Cost) (problems []string) {
	known := map[string]bool{}
	for line := range strings.Lines(text) {
		var name string
		var was float64
		if n, _ := fmt.Sscan(line, &name, &was); n != 2 {
			problems = append(problems, fmt.Sprintf("cannot read %q", line))
			continue
		}
		known[name] = true
		now, measured := costs[name]
		switch {
		case !measured:
			problems = append(problems, name+" is not measured any more")
		case now.Count > was*(1+now.Margin):
			problems = append(problems,
				fmt.Sprintf("%s grew from %.0f to %.0f; find out why, or run make golden if it must", name, was,
					now.Count))
		case now.Count < was*(shrunk-now.Margin):
			problems = append(problems,
				fmt.Sprintf("%s shrank from %.0f to %.0f; run make golden, so that it stays so", name, was, now.Count))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(costs)) {
		if !known[name] {
			problems = append(problems, name+" has no baseline; run make golden")
		}
	}
	return problems
}
