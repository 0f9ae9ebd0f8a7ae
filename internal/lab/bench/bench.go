// SPDX-License-Identifier: Apache-2.0

// Package bench holds what all measurements have in common: medians with their
// intervals, ratios within a round, bars, and the report that a run prints and
// keeps. It is pure arithmetic and text: it starts nothing, reads no clock, and
// does not know what was measured. The commands of podwall-lab measure.
//
// The method is the same everywhere. The settings that are compared take turns
// in one run, round by round, because machines are shared and drift; each
// setting is compared with the base of its own round; and a second, equal base
// (the null) shows how much of a difference is noise.
package bench

import (
	"slices"

	"golang.org/x/perf/benchmath"
)

// Confidence is that of all intervals.
const Confidence = 0.95

// Interval is a median and where the true one lies with the probability
// Confidence. It is made of order statistics, so it assumes nothing about the
// distribution; below 6 values it is the range of all.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	N      int     `json:"n"`
}

// enough is the number of values from which on an interval of order statistics
// reaches Confidence: 1 - 2/2^n.
const enough = 6

// Summarize returns the interval of the median. There must be a value.
func Summarize(values []float64) Interval {
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds),
		Confidence)
	i := Interval{Median: s.Center, Low: s.Lo, High: s.Hi, N: len(values)}
	if len(values) < enough {
		i.Low, i.High = slices.Min(values), slices.Max(values)
	}
	return i
}

// Quantile returns the value below which the part q (0 to 1) of the values lies:
// the smallest that has at least that part at or below it. There must be a value.
func Quantile(values []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(values))
	i := int(q*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// Series are the values of one setting, one for each round.
type Series struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
}

// Ratios divides round by round: what the machine does to a whole round cancels
// out. Both have the same number of rounds.
func Ratios(s, base Series) []float64 {
	list := make([]float64, len(s.Values))
	for i, v := range s.Values {
		list[i] = v / base.Values[i]
	}
	return list
}

// Bar is a goal for a row. A zero field asks nothing.
type Bar struct {
	// Text is the bar in words, as the design has it.
	Text string `json:"text"`
	// Value bounds the median of the row's values.
	Value float64 `json:"value,omitempty"`
	// Ratio bounds the median of the ratios, End the upper end of their interval.
	Ratio float64 `json:"ratio,omitempty"`
	End   float64 `json:"end,omitempty"`
	// One asks that the ratio's interval reaches down to 1: no loss is seen.
	One bool `json:"one,omitempty"`
}

// Met reports whether the row keeps the bar.
func (b Bar) Met(r Row) bool {
	switch {
	case b.Value != 0 && r.Value.Median > b.Value:
		return false
	case b.Ratio == 0 && b.End == 0 && !b.One:
		return true
	case r.Ratio == nil:
		return false
	}
	return (b.Ratio == 0 || r.Ratio.Median <= b.Ratio) && (b.End == 0 || r.Ratio.High <= b.End) &&
		(!b.One || r.Ratio.Low <= 1)
}

// Row is one line of a report: one setting in one section.
type Row struct {
	// Section says what was measured, Name in which setting.
	Section string `json:"section"`
	Name    string `json:"name"`
	// Unit is that of Value, as in "ns", "µs CPU", "ms", "B".
	Unit  string   `json:"unit"`
	Value Interval `json:"value"`
	// Base names the setting that Ratio is relative to; empty for the base itself
	// and where nothing is compared.
	Base  string    `json:"base,omitempty"`
	Ratio *Interval `json:"ratio,omitempty"`
	Bar   *Bar      `json:"bar,omitempty"`
	Met   *bool     `json:"met,omitempty"`
	// Values are the single rounds, for those who want to count again.
	Values []float64 `json:"values,omitempty"`
}

// Alone is the row of a setting that is compared with nothing.
func Alone(section, unit string, s Series, bar *Bar) Row {
	return Row{Section: section, Name: s.Name, Unit: unit, Value: Summarize(s.Values), Values: s.Values}.judged(bar)
}

// Against is the row of a setting beside its base.
func Against(section, unit string, s, base Series, bar *Bar) Row {
	r := Row{Section: section, Name: s.Name, Unit: unit, Value: Summarize(s.Values), Values: s.Values, Base: base.Name}
	ratio := Summarize(Ratios(s, base))
	r.Ratio = &ratio
	return r.judged(bar)
}

func (r Row) judged(bar *Bar) Row {
	if bar != nil {
		met := bar.Met(r)
		r.Bar, r.Met = bar, &met
	}
	return r
}
