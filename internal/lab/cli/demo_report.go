// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/lab/trial"
)

// demoSchema names the form of the demo's JSON. Fields may be added under the
// same name; when one changes its meaning the name changes.
const demoSchema = "podwall.demo/v1"

// demoReport is the demo's answer.
type demoReport struct {
	Schema   string         `json:"schema"`
	Datapath string         `json:"datapath"`
	Wirings  []wiringReport `json:"wirings"`
	Table    []tableRow     `json:"table"`
	// Differences are verdicts that are not what the policies say, on any
	// wiring, in the table or not.
	Differences []string `json:"differences"`
	Packets     tally    `json:"packets"`
	Pass        bool     `json:"pass"`

	wirings []wiringReport
}

// tally is real packets, and what became of them.
type tally struct {
	Sent    int    `json:"sent"`
	Arrived int    `json:"arrived"`
	Dropped uint64 `json:"dropped"`
}

type wiringReport struct {
	Wiring   string          `json:"wiring"`
	Seconds  float64         `json:"seconds"`
	Examples []exampleReport `json:"examples"`

	shown  []exampleView
	totals trial.Totals
}

type exampleReport struct {
	Number    int           `json:"number"`
	Title     string        `json:"title"`
	File      string        `json:"file"`
	Endpoints []string      `json:"endpoints"`
	Probes    []probeReport `json:"probes"`
}

// probeReport has a row for each source and a column for each destination: 1
// arrived, 0 dropped, - not asked, ? not known.
type probeReport struct {
	Protocol string   `json:"protocol"`
	Port     uint16   `json:"port"`
	Family   string   `json:"family"`
	Before   []string `json:"before"`
	After    []string `json:"after"`
}

type tableRow struct {
	// Row is the number in the functional table, 0 for what is beside it.
	Row     int      `json:"row"`
	Title   string   `json:"title"`
	Seed    string   `json:"seed,omitempty"`
	Results []result `json:"results"`
}

func (r *demoReport) add(w wiringReport) {
	for _, e := range w.shown {
		w.Examples = append(w.Examples, e.report())
		for _, text := range e.wrong {
			r.Differences = append(r.Differences, w.Wiring+", "+exampleName(e.example)+": "+text)
		}
	}
	r.Packets.Sent += w.totals.Sent
	r.Packets.Arrived += w.totals.Arrived
	r.Packets.Dropped += w.totals.Dropped
	r.wirings = append(r.wirings, w)
}

// finish fills in what follows from the measurements.
func (r *demoReport) finish() {
	r.Wirings, r.Pass = r.wirings, len(r.Differences) == 0
	if r.Differences == nil {
		r.Differences = []string{} // a list for programs, not null
	}
	for _, row := range seedRows() {
		t := tableRow{Row: row.Number, Title: row.Title, Seed: row.Seed}
		for _, w := range r.wirings {
			res := row.judge(w.Wiring, w.shown)
			r.Pass = r.Pass && res.Result == "Pass"
			t.Results = append(t.Results, res)
		}
		r.Table = append(r.Table, t)
	}
}

// view returns what an example looked like on the first wiring, or nil.
func (r *demoReport) view(number int) *exampleView {
	if len(r.wirings) == 0 {
		return nil
	}
	i := slices.IndexFunc(r.wirings[0].shown, func(e exampleView) bool { return e.Number == number })
	if i < 0 {
		return nil
	}
	return &r.wirings[0].shown[i]
}

func (e exampleView) report() exampleReport {
	r := exampleReport{Number: e.Number, Title: e.Title, File: "examples/" + e.File}
	for _, end := range e.after.ends {
		r.Endpoints = append(r.Endpoints, end.name)
	}
	for i, p := range e.after.ports {
		for _, v6 := range []bool{false, true} {
			r.Probes = append(r.Probes, probeReport{Protocol: strings.ToUpper(p.proto.String()), Port: p.number,
				Family: familyName(v6),
				Before: e.before.grid(i, v6), After: e.after.grid(i, v6)})
		}
	}
	return r
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func (v *view) grid(port int, v6 bool) []string {
	var rows []string
	for src := range v.ends {
		var row strings.Builder
		for dst := range v.ends {
			if a, asked := v.answers[flow{v6, port, src, dst}]; asked {
				row.WriteString(a.Verdict.String())
			} else {
				row.WriteByte('-')
			}
		}
		rows = append(rows, row.String())
	}
	return rows
}
