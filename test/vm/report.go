// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Report has the last result of each suite on each kernel.
type Report struct {
	Results []Result `json:"results"`
}

// readReport reads a report. One that is not there is empty.
func readReport(name string) (*Report, error) {
	r := &Report{}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the report (remove it to begin anew): %w", err)
	}
	return r, nil
}

// put replaces the result of the same suite, or part of it, on the same release. A
// whole suite replaces its parts too.
func (r *Report) put(one Result) {
	r.Results = slices.DeleteFunc(r.Results, func(o Result) bool {
		return o.Release == one.Release && o.Suite == one.Suite && (one.Part == "" || o.Part == one.Part)
	})
	for i := range r.Results {
		r.Results[i].mend(one)
	}
	r.Results = append(r.Results, one)
	slices.SortFunc(r.Results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.Release, b.Release),
			cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Part, b.Part))
	})
}

// mend notes which failed tests of a result have passed in a later one.
func (r *Result) mend(later Result) {
	if r.Release != later.Release || r.Suite != later.Suite {
		return
	}
	r.Failed = slices.DeleteFunc(r.Failed, func(name string) bool {
		passed := slices.Contains(later.passed, name)
		if passed {
			r.Mended = append(r.Mended, Mended{name, later.Commit})
		}
		return passed
	})
}

// place is where a result stands: by the age of the kernel, then as suites are run.
func place(r Result) int {
	n := slices.Index(allReleases(), r.Release)
	if n < 0 {
		n = len(allReleases())
	}
	return n*100 + slices.IndexFunc(suites(), func(s suite) bool { return s.Name == r.Suite })
}

// write writes the report for people and for programs.
func (r *Report) write(name string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(name+".json", append(text, '\n'), 0o644)
	}
	if err == nil {
		err = os.WriteFile(name+".md", []byte(r.markdown()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

const head = `# Kernels

Written by ` + "`make vm`" + ` ([how](../../hack/vm/README.md)): the tests that depend on the kernel, with the kernels of Debian's releases
in virtual machines of QEMU's emulation, which is 5 to 10 times slower than a processor. Seconds measure the machine, nothing else.
A test with parts counts as its parts. A row is the last run of a suite on a kernel, at its own commit.

| suite | is |
|---|---|
`

func (r *Report) markdown() string {
	var b strings.Builder
	b.WriteString(head)
	for _, s := range suites() {
		fmt.Fprintf(&b, "| %s | `%s` |\n", s.Name, s.Package)
	}
	fmt.Fprintf(&b, "\n%s\n%s", table(r.Results), details(r.Results))
	return b.String()
}

// table has a line for each result.
func table(list []Result) string {
	var b strings.Builder
	b.WriteString("| kernel | suite | passed | failed | skipped | seconds | tries | began | commit " +
		"|\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range list {
		name := r.Suite
		if r.Part != "" {
			name += ", a part: `" + strings.ReplaceAll(r.Part, "|", `\|`) + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %.0f | %d | %s | %s |\n", r.Kernel, name, r.Passed, len(r.Failed),
			len(r.Skipped),
			r.Seconds, r.Tries, r.Began.Format("2006-01-02 15:04"), r.Commit)
	}
	return b.String()
}

// details name what failed and what was skipped.
func details(list []Result) string {
	var b strings.Builder
	b.WriteString("## Failed\n\n")
	for _, r := range list {
		for _, name := range r.Failed {
			fmt.Fprintf(&b, "- %s, %s: %s\n", r.Kernel, r.Suite, name)
		}
	}
	if strings.HasSuffix(b.String(), "\n\n") {
		b.WriteString("Nothing.\n")
	}
	for _, r := range list {
		for _, m := range r.Mended {
			fmt.Fprintf(&b, "- %s, %s: %s, which passed at %s\n", r.Kernel, r.Suite, m.Test, m.Commit)
		}
	}
	b.WriteString("\n## Skipped\n\n")
	skipped, order := map[string][]string{}, []string{}
	for _, r := range list {
		for _, s := range r.Skipped {
			key := fmt.Sprintf("%s %s: %s", r.Suite, s.Test, s.Reason)
			if skipped[key] == nil {
				order = append(order, key)
			}
			skipped[key] = append(skipped[key], r.Release)
		}
	}
	for _, key := range order {
		fmt.Fprintf(&b, "- %s (%s)\n", key, strings.Join(skipped[key], ", "))
	}
	if len(order) == 0 {
		b.WriteString("Nothing.\n")
	}
	return b.String()
}
