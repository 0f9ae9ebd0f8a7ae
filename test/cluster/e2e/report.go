// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what a run found out, and where.
type Report struct {
	Commit       string         `json:"commit"`
	Date         string         `json:"date"`
	Machine      Machine        `json:"machine"`
	Programs     []string       `json:"programs"`
	ImageBytes   int64          `json:"imageBytes,omitempty"`
	Combinations []*Combination `json:"combinations"`
}

// Machine is where it was run.
type Machine struct {
	Kernel       string  `json:"kernel"`
	System       string  `json:"system"`
	Architecture string  `json:"architecture"`
	Processors   int     `json:"processors"`
	MemoryMiB    int     `json:"memoryMiB"`
	Load         float64 `json:"loadAtStart"` // of one minute
}

// Combination is one kind of cluster, and what was seen on it.
type Combination struct {
	Name           string      `json:"name"`
	Seconds        float64     `json:"seconds"`
	ClusterSeconds float64     `json:"clusterReadySeconds"` // from nothing to nodes that are ready
	InstallSeconds float64     `json:"installSeconds"`      // from apply to agents that are ready
	Specs          []Spec      `json:"specs,omitempty"`
	Scenarios      []*Scenario `json:"scenarios,omitempty"`
	Agents         []Agent     `json:"agents,omitempty"` // after all that
	Error          string      `json:"error,omitempty"`
}

// Spec is the result of one upstream spec.
type Spec struct {
	Name    string  `json:"name"`
	Status  string  `json:"status"` // passed, failed, timedout, interrupted
	Seconds float64 `json:"seconds"`
	Failure string  `json:"failure,omitempty"`
}

// Scenario is the result of one of ours.
type Scenario struct {
	Name    string   `json:"name"`
	Passed  bool     `json:"passed"`
	Seconds float64  `json:"seconds"`
	Figures []Figure `json:"figures,omitempty"`
	Failure string   `json:"failure,omitempty"`
}

// Figure is something that was counted or measured.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// Agent is what an agent has cost since it was started.
type Agent struct {
	Node       string  `json:"node"`
	CPUSeconds float64 `json:"cpuSeconds"`
	Lived      float64 `json:"livedSeconds"`
	MemoryMiB  float64 `json:"residentMiB"`
	PeakMiB    float64 `json:"peakResidentMiB"`
}

func newReport(bin string) (*Report, error) {
	r := &Report{Date: time.Now().UTC().Format(time.DateOnly)}
	commit, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return nil, fmt.Errorf("asking git for the commit: %w", err)
	}
	r.Commit = strings.TrimSpace(string(commit))
	if r.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	for _, program := range [][]string{{"kube", "kubelet", "--version"}, {"containerd/containerd", "--version"}, {"containerd/runc", "--version"}} {
		text, err := exec.Command(filepath.Join(bin, program[0]), program[1:]...).Output()
		if err != nil {
			return nil, fmt.Errorf("asking %s for its version: %w", program[0], err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		r.Programs = append(r.Programs, strings.TrimSpace(first))
	}
	return r, nil
}

func thisMachine() (m Machine, err error) {
	var name unix.Utsname
	var info unix.Sysinfo_t
	load, err := os.ReadFile("/proc/loadavg")
	system, err2 := os.ReadFile("/etc/os-release")
	if err := errors.Join(err, err2, unix.Uname(&name), unix.Sysinfo(&info)); err != nil {
		return m, fmt.Errorf("looking at this machine: %w", err)
	}
	m = Machine{Kernel: unix.ByteSliceToString(name.Release[:]), Architecture: runtime.GOARCH, Processors: runtime.NumCPU(),
		MemoryMiB: int(info.Totalram * uint64(info.Unit) >> 20)}
	one, _, _ := strings.Cut(string(load), " ")
	m.Load, err = strconv.ParseFloat(one, 64)
	for line := range strings.Lines(string(system)) {
		if value, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
			m.System = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return m, err
}

// failures counts what did not pass.
func (r *Report) failures() (n int) {
	for _, c := range r.Combinations {
		if c.Error != "" {
			n++
		}
		_, failed := c.count()
		n += failed
		for _, s := range c.Scenarios {
			if !s.Passed {
				n++
			}
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

// write writes the report for programs and for people.
func (r *Report) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "e2e.json"), append(data, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "e2e.md"), r.markdown(), 0o644))
}

func (r *Report) markdown() []byte {
	var b bytes.Buffer
	m := r.Machine
	fmt.Fprintf(&b, "# podwall on a real cluster\n\nWritten by `make e2e` ([how, and what it covers](../e2e.md)).\n\n")
	fmt.Fprintf(&b, "Commit %s, %s. %s, kernel %s, %s, %d processors, %d MiB; load %.1f at the start.\n%s.\n",
		r.Commit, r.Date, m.System, m.Kernel, m.Architecture, m.Processors, m.MemoryMiB, m.Load, strings.Join(r.Programs, "; "))
	if r.ImageBytes > 0 {
		fmt.Fprintf(&b, "Size of the image's archive: %.1f MiB.\n", float64(r.ImageBytes)/(1<<20))
	}
	fmt.Fprintf(&b, "\n| cluster | specs passed | scenarios passed | cluster ready | podwall ready | took |\n|---|---|---|---|---|---|\n")
	for _, c := range r.Combinations {
		passed, failed := c.count()
		fmt.Fprintf(&b, "| %s | %d of %d | %d of %d | %.0f s | %.0f s | %.0f s |\n", c.Name, passed, passed+failed, c.scenariosPassed(), len(c.Scenarios),
			c.ClusterSeconds, c.InstallSeconds, c.Seconds)
	}
	for _, c := range r.Combinations {
		c.markdown(&b)
	}
	return b.Bytes()
}

func (c *Combination) scenariosPassed() (n int) {
	for _, s := range c.Scenarios {
		if s.Passed {
			n++
		}
	}
	return n
}

func (c *Combination) markdown(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## %s\n", c.Name)
	if c.Error != "" {
		fmt.Fprintf(b, "\nEnded early: %s\n", oneLine(c.Error))
	}
	if len(c.Agents) > 0 {
		fmt.Fprintf(b, "\n| agent on | lived | CPU | memory | at most |\n|---|---|---|---|---|\n")
		for _, a := range c.Agents {
			fmt.Fprintf(b, "| %s | %.0f s | %.1f s | %.0f MiB | %.0f MiB |\n", a.Node, a.Lived, a.CPUSeconds, a.MemoryMiB, a.PeakMiB)
		}
	}
	if len(c.Scenarios) > 0 {
		fmt.Fprintf(b, "\n| scenario | result | took | figures |\n|---|---|---|---|\n")
		for _, s := range c.Scenarios {
			fmt.Fprintf(b, "| %s | %s | %.0f s | %s |\n", s.Name, verdict(s.Passed, s.Failure), s.Seconds, figures(s.Figures))
		}
	}
	if len(c.Specs) > 0 {
		fmt.Fprintf(b, "\n| spec | result | took |\n|---|---|---|\n")
		for _, s := range c.Specs {
			fmt.Fprintf(b, "| %s | %s | %.0f s |\n", s.Name, verdict(s.Status == "passed", s.Failure), s.Seconds)
		}
	}
}

func verdict(passed bool, failure string) string {
	if passed {
		return "passed"
	}
	return "**failed**: " + oneLine(failure)
}

func figures(list []Figure) string {
	texts := make([]string, len(list))
	for i, f := range list {
		texts[i] = strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Name, strconv.FormatFloat(f.Value, 'f', -1, 64), f.Unit))
	}
	return strings.Join(texts, "; ")
}

// oneLine makes a text fit into a cell.
func oneLine(text string) string {
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
	if len(text) > 300 {
		text = text[:300] + " …"
	}
	return text
}
