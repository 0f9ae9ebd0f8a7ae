// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Report is what runs found out. A run replaces the rows that it finds
// anew, so that a report can be put together from several.
type Report struct {
	Programs     []string       `json:"programs"`
	ImageBytes   int64          `json:"imageBytes,omitempty"`
	Runs         []*Run         `json:"runs"`
	Combinations []*Combination `json:"combinations"`
}

// Machine is where something was run.
type Machine struct {
	Kernel       string `json:"kernel"`
	System       string `json:"system"`
	Architecture string `json:"architecture"`
	Processors   int    `json:"processors"`
	MemoryMiB    int    `json:"memoryMiB"`
}

// Combination is one kind of cluster, and what was seen on it.
type Combination struct {
	Name      string      `json:"name"`
	Specs     []Spec      `json:"specs,omitempty"`
	Scenarios []*Scenario `json:"scenarios,omitempty"`
}

// Spec is the result of one upstream spec.
type Spec struct {
	Run     string  `json:"run"`
	Name    string  `json:"name"`
	Status  string  `json:"status"` // passed, failed, timedout, interrupted
	Seconds float64 `json:"seconds"`
	Failure string  `json:"failure,omitempty"`
}

// Scenario is the result of one of ours.
type Scenario struct {
	Run     string   `json:"run"`
	Name    string   `json:"name"`
	Passed  bool     `json:"passed"`
	Seconds float64  `json:"seconds"`
	Figures []Figure `json:"figures,omitempty"`
	Series  []Series `json:"series,omitempty"`
	Failure string   `json:"failure,omitempty"`
}

// Figure is something that was counted or measured.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// Series are the two flows while one thing happened.
type Series struct {
	During     string `json:"during,omitempty"` // empty: all that the scenario does
	NeverSent  uint64 `json:"neverSent"`        // datagrams that must not pass
	Passed     uint64 `json:"passed"`           // of them
	AlwaysSent uint64 `json:"alwaysSent"`       // datagrams that must pass
	Lost       int64  `json:"lost"`             // of them; below zero: more came than were sent
}

// Agent is what an agent has cost since it was started.
type Agent struct {
	Node       string  `json:"node"`
	CPUSeconds float64 `json:"cpuSeconds"`
	Lived      float64 `json:"livedSeconds"`
	MemoryMiB  float64 `json:"residentMiB"`
	PeakMiB    float64 `json:"peakResidentMiB"`
}

// readReport returns the report of a directory, for a run to add to; an empty one
// where there is none.
func readReport(dir string) (*Report, error) {
	r := &Report{}
	name := filepath.Join(dir, "e2e.json")
	data, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return r, nil
}

// version is the first line that a program says.
func version(program ...string) (string, error) {
	text, err := exec.Command(program[0], program[1:]...).Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", program[0], err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(first), nil
}

func versions(bin string) (list []string, err error) {
	for _, program := range [][]string{{"kube", "kubelet", "--version"}, {"containerd/containerd", "--version"},
		{"containerd/runc", "--version"}} {
		v, one := version(append([]string{filepath.Join(bin, program[0])}, program[1:]...)...)
		list, err = append(list, v), errors.Join(err, one)
	}
	return list, err
}

func thisMachine() (m Machine, err error) {
	var name unix.Utsname
	var info unix.Sysinfo_t
	system, err := os.ReadFile("/etc/os-release")
	if err := errors.Join(err, unix.Uname(&name), unix.Sysinfo(&info)); err != nil {
		return m, fmt.Errorf("looking at this machine: %w", err)
	}
	m = Machine{Kernel: unix.ByteSliceToString(name.Release[:]), Architecture: runtime.GOARCH,
		Processors: runtime.NumCPU(),
		MemoryMiB:  int(info.Totalram * uint64(info.Unit) >> 20)}
	for line := range strings.Lines(string(system)) {
		if value, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
			m.System = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return m, nil
}

// found is what one run has found so far.
type found struct {
	run       *Run
	specs     []Spec
	scenarios []*Scenario
}

// add replaces the rows that were found anew.
func (r *Report) add(f *found) {
	r.Runs = slices.DeleteFunc(r.Runs, func(old *Run) bool { return old.Began == f.run.Began })
	r.Runs = append(r.Runs, f.run)
	slices.SortFunc(r.Runs, func(a, b *Run) int { return strings.Compare(a.Began, b.Began) })
	c := r.combination(f.run.Combination)
	r.Combinations = replace(r.Combinations, c, func(old *Combination) bool { return old.Name == c.Name })
	for _, s := range f.specs {
		s.Run = f.run.Began
		c.Specs = replace(c.Specs, s, func(old Spec) bool { return old.Name == s.Name })
	}
	for _, s := range f.scenarios {
		s.Run = f.run.Began
		c.Scenarios = replace(c.Scenarios, s, func(old *Scenario) bool { return old.Name == s.Name })
	}
	r.tidy(f.run)
}

// combination returns one of the report, or an empty one.
func (r *Report) combination(name string) *Combination {
	for _, c := range r.Combinations {
		if c.Name == name {
			return c
		}
	}
	return &Combination{Name: name}
}

// replace puts a row in the place of an older one, or behind all.
func replace[T any](rows []T, row T, older func(T) bool) []T {
	if i := slices.IndexFunc(rows, older); i >= 0 {
		rows[i] = row
		return rows
	}
	return append(rows, row)
}

// passedOf returns the names of what has passed.
func passedOf(c *Combination) map[string]bool {
	names := map[string]bool{}
	if c == nil {
		return names
	}
	for _, s := range c.Specs {
		names[s.Name] = s.Status == "passed"
	}
	for _, s := range c.Scenarios {
		names[s.Name] = s.Passed
	}
	return names
}

// tidy sorts as the plans do, and drops what is in no plan any more and runs
// whose rows have all been replaced, but for the newest one.
func (r *Report) tidy(newest *Run) {
	used := map[string]bool{newest.Began: true}
	var list []*Combination
	for _, p := range plans() {
		for _, c := range r.Combinations {
			if c.Name == p.name {
				c.tidy(p, used)
				list = append(list, c)
			}
		}
	}
	r.Combinations = list
	r.Runs = slices.DeleteFunc(r.Runs, func(run *Run) bool { return !used[run.Began] })
}

func (c *Combination) tidy(p plan, used map[string]bool) {
	var list []*Scenario
	for _, planned := range scenarios() {
		for _, s := range c.Scenarios {
			if s.Name == planned.name && p.tries(planned) {
				list, used[s.Run] = append(list, s), true
			}
		}
	}
	c.Scenarios = list
	slices.SortFunc(c.Specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range c.Specs {
		used[s.Run] = true
	}
}

// failures counts what did not pass.
func (f *found) failures() (n int) {
	if f.run.Error != "" {
		n++
	}
	for _, s := range f.specs {
		if s.Status != "passed" {
			n++
		}
	}
	for _, s := range f.scenarios {
		if !s.Passed {
			n++
		}
	}
	return n
}

func (c *Combination) count() (passed, failed int) {
	for _, s := range c.Specs {
		if s.Status == "passed" {
			passed++
		} else {
			failed++
		}
	}
	return passed, failed
}

func (c *Combination) scenariosPassed() (n int) {
	for _, s := range c.Scenarios {
		if s.Passed {
			n++
		}
	}
	return n
}

// mergeReports adds the rows of one directory's report to another's, run by run.
func mergeReports(to, from string) error {
	r, err := readReport(to)
	other, err2 := readReport(from)
	if err := errors.Join(err, err2, os.MkdirAll(to, 0o755)); err != nil {
		return err
	}
	for _, run := range other.Runs {
		f := &found{run: run}
		for _, c := range other.Combinations {
			for _, s := range c.Specs {
				if s.Run == run.Began {
					f.specs = append(f.specs, s)
				}
			}
			for _, s := range c.Scenarios {
				if s.Run == run.Began {
					f.scenarios = append(f.scenarios, s)
				}
			}
		}
		r.add(f)
	}
	r.Programs, r.ImageBytes = other.Programs, other.ImageBytes
	return r.write(to)
}

// save adds what was found to the report of a directory, as it is there now:
// other runs may add to it too.
func (f *found) save(dir string, edit func(*Report)) error {
	if err := errors.Join(f.run.now(), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close() // which unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	r.add(f)
	edit(r)
	return r.write(dir)
}

// write writes the report for programs and for people.
func (r *Report) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "e2e.json"), append(data, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "e2e.md"), r.markdown(), 0o644))
}
