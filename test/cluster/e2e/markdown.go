// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

func (r *Report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# podwall on a real cluster\n\nWritten by `make e2e` ([how, and what it covers](../e2e.md)).\n\n")
	fmt.Fprintf(&b, "%s.\n", strings.Join(r.Programs, "; "))
	if r.ImageBytes > 0 {
		fmt.Fprintf(&b, "Size of the image's archive: %.1f MiB.\n", float64(r.ImageBytes)/(1<<20))
	}
	r.summary(&b)
	r.runs(&b)
	numbers := map[string]int{}
	for i, run := range r.Runs {
		numbers[run.Began] = i + 1
	}
	for _, c := range r.Combinations {
		c.markdown(&b, numbers)
	}
	return b.Bytes()
}

// summary has a line for each plan, also for what was not tried.
func (r *Report) summary(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n| cluster | specs passed | failed | not tried | scenarios passed | failed | not tried |\n"+
		"|---|---|---|---|---|---|---|\n")
	for _, p := range plans() {
		c := r.combination(p.name)
		passed, failed := c.count()
		done, planned := c.scenariosPassed(), 0
		for _, s := range scenarios() {
			if p.tries(s) {
				planned++
			}
		}
		fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d | %d |\n", p.name, passed, failed, max(p.count-passed-failed, 0),
			done, len(c.Scenarios)-done, planned-len(c.Scenarios))
	}
}

// machines are those of the runs, in the order of their first ones.
func (r *Report) machines() (list []Machine) {
	for _, run := range r.Runs {
		if !slices.Contains(list, run.Machine) {
			list = append(list, run.Machine)
		}
	}
	return list
}

// runs are the tables of circumstances and of costs.
func (r *Report) runs(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## Runs\n\nEach row below names the run that found it. A run is one cluster; "+
		"image is the commit of which the agent's image was built,\n"+
		"checkout that of the harness and the manifests. Load is the machine's, of one minute, at the start and at "+
		"the end.\n\n")
	machines := r.machines()
	for i, m := range machines {
		fmt.Fprintf(b, "- machine %d: %s, kernel %s, %s, %d processors, %d MiB.\n", i+1, m.System, m.Kernel,
			m.Architecture, m.Processors, m.MemoryMiB)
	}
	fmt.Fprintf(b, "\n| run | cluster | machine | began | took | image | checkout | load | cluster ready | podwall "+
		"ready |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for i, run := range r.Runs {
		fmt.Fprintf(b, "| %d | %s | %d | %s | %.0f s | %s | %s | %.1f, %.1f | %.0f s | %.0f s |\n", i+1,
			run.Combination, slices.Index(machines, run.Machine)+1, run.Began, run.Seconds,
			run.Image, run.Commit, run.LoadBegin, run.LoadEnd, run.ClusterSeconds, run.InstallSeconds)
	}
	for i, run := range r.Runs {
		if run.Error != "" {
			fmt.Fprintf(b, "\nRun %d ended early: %s\n", i+1, oneLine(run.Error))
		}
	}
	fmt.Fprintf(b, "\nWhat the agents had cost when their run ended:\n\n| run | agent on | lived | CPU | memory | "+
		"at most |\n"+
		"|---|---|---|---|---|---|\n")
	for i, run := range r.Runs {
		for _, a := range run.Agents {
			fmt.Fprintf(b, "| %d | %s | %.0f s | %.1f s | %.0f MiB | %.0f MiB |\n", i+1, a.Node, a.Lived,
				a.CPUSeconds, a.MemoryMiB, a.PeakMiB)
		}
	}
}

func (c *Combination) markdown(b *bytes.Buffer, numbers map[string]int) {
	fmt.Fprintf(b, "\n## %s\n", c.Name)
	if len(c.Scenarios) > 0 {
		fmt.Fprintf(b, "\n| scenario | result | run | took | figures |\n|---|---|---|---|---|\n")
		for _, s := range c.Scenarios {
			fmt.Fprintf(b, "| %s | %s | %d | %.0f s | %s |\n", s.Name, verdict(s.Passed, s.Failure), numbers[s.Run],
				s.Seconds, figures(s.Figures))
		}
	}
	c.series(b)
	if len(c.Specs) > 0 {
		fmt.Fprintf(b, "\n| spec | result | run | took |\n|---|---|---|---|\n")
		for _, s := range c.Specs {
			fmt.Fprintf(b, "| %s | %s | %d | %.0f s |\n", s.Name, verdict(s.Status == "passed", s.Failure),
				numbers[s.Run], s.Seconds)
		}
	}
}

// series is a table of the flows.
func (c *Combination) series(b *bytes.Buffer) {
	const head = "\n| flows during | sent that must never pass | passed | sent that must always pass | lost |\n" +
		"|---|---|---|---|---|\n"
	begun := false
	for _, s := range c.Scenarios {
		for _, f := range s.Series {
			if !begun {
				b.WriteString(head)
				begun = true
			}
			name := s.Name
			if f.During != "" {
				name += ": " + f.During
			}
			fmt.Fprintf(b, "| %s | %d | %d | %d | %d |\n", name, f.NeverSent, f.Passed, f.AlwaysSent, f.Lost)
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
