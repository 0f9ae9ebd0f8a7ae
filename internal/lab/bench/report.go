// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
)

// Machine says where a report comes from.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	// Load is the average over the minute before the run: what else was done.
	Load float64 `json:"load"`
}

// Plot is a picture of a report: lines over one axis.
type Plot struct {
	// Name is that of the file, without ending.
	Name  string `json:"name"`
	Title string `json:"title"`
	X     string `json:"x"`
	Y     string `json:"y"`
	// LogX makes the X axis logarithmic.
	LogX  bool   `json:"logX,omitempty"`
	Lines []Line `json:"lines"`
}

// Line is one setting in a plot.
type Line struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is a value with its interval at X.
type Point struct {
	X float64  `json:"x"`
	Y Interval `json:"y"`
}

// Report is the whole of a run.
type Report struct {
	// Command is the line that makes the report anew, Version the program's.
	Command string   `json:"command"`
	Version string   `json:"version"`
	Date    string   `json:"date"`
	Machine Machine  `json:"machine"`
	Rows    []Row    `json:"rows"`
	Plots   []Plot   `json:"plots,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Missed counts the rows that do not keep their bar.
func (r *Report) Missed() (n int) {
	for _, row := range r.Rows {
		if row.Met != nil && !*row.Met {
			n++
		}
	}
	return n
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// WriteTable writes the report for people, one table for each section.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s\n%s, %d cores, kernel %s, load %.1f, %s\n", r.Command, r.Machine.CPU, r.Machine.Cores,
		r.Machine.Kernel, r.Machine.Load, r.Version)
	section := ""
	for _, row := range r.Rows {
		if row.Section != section {
			section = row.Section
			fmt.Fprintf(t, "\n%s\t%s\tratio\tbar\t\n", section, row.Unit)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", row.Name, row.Value, row.ratio(), row.bar(), row.met())
	}
	for _, n := range r.Notes {
		fmt.Fprintf(t, "\n%s\n", n)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// WriteMarkdown writes the tables for a page of the documentation.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var err error
	put := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
	}
	section := ""
	for _, row := range r.Rows {
		if row.Section != section {
			section = row.Section
			put("\n| %s | %s | ratio | bar | |\n| --- | --- | --- | --- | --- |\n", section, row.Unit)
		}
		put("| %s | %s | %s | %s | %s |\n", row.Name, row.Value, row.ratio(), row.bar(), row.met())
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// String shows the median and, if there is more than one value, the interval.
func (i Interval) String() string {
	if i.N < 2 {
		return number(i.Median)
	}
	return fmt.Sprintf("%s [%s, %s]", number(i.Median), number(i.Low), number(i.High))
}

// number writes a value with three or four digits that count.
func number(v float64) string {
	digits := 0
	if a := math.Abs(v); a < 100 && a > 0 {
		digits = min(2-int(math.Floor(math.Log10(a))), 6)
	}
	return strconv.FormatFloat(v, 'f', max(digits, 0), 64)
}

func (r Row) ratio() string {
	if r.Ratio == nil {
		return ""
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", r.Ratio.Median, r.Ratio.Low, r.Ratio.High)
}

func (r Row) bar() string {
	if r.Bar == nil {
		return ""
	}
	return r.Bar.Text
}

func (r Row) met() string {
	switch {
	case r.Met == nil:
		return ""
	case *r.Met:
		return "met"
	}
	return "NOT MET"
}
