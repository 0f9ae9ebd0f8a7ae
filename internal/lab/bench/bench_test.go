// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab/bench"
)

func TestAnIntervalHoldsTheMedianAndIsNarrowerThanTheRange(t *testing.T) {
	got := bench.Summarize([]float64{5, 1, 9, 3, 7, 2, 8, 4, 6, 100})
	if got.Median != 5.5 || got.N != 10 || got.Low < 2 || got.High > 9 || got.Low > 5 || got.High < 6 {
		t.Errorf("interval %+v, want the median 5.5 within two of the inner values", got)
	}
}

func TestAnIntervalOfFewValuesIsTheirRange(t *testing.T) {
	want := bench.Interval{Median: 2, Low: 1, High: 4, N: 3}
	if diff := cmp.Diff(want, bench.Summarize([]float64{4, 1, 2})); diff != "" {
		t.Errorf("interval (-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(bench.Summarize([]float64{1})); err != nil {
		t.Error(err)
	}
}

func TestSummarizeLeavesTheValuesInTheirOrder(t *testing.T) {
	values := []float64{3, 1, 2, 6, 5, 4, 0}
	bench.Summarize(values)
	bench.Quantile(values, 0.5)
	if diff := cmp.Diff([]float64{3, 1, 2, 6, 5, 4, 0}, values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestQuantiles(t *testing.T) {
	var values []float64
	for i := range 1000 {
		values = append(values, float64(999-i))
	}
	for q, want := range map[float64]float64{0: 0, 0.5: 499, 0.99: 989, 0.999: 998, 1: 999} {
		if got := bench.Quantile(values, q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}

// A machine that is twice as slow in every second round changes no ratio.
func TestARatioIsTakenWithinARound(t *testing.T) {
	base := bench.Series{Name: "no agent", Values: []float64{100, 200, 100, 200, 100, 200, 100}}
	s := bench.Series{Name: "podwall", Values: []float64{102, 204, 102, 204, 102, 204, 102}}
	r := bench.Against("CPU", "µs", s, base, nil)
	if math.Abs(r.Ratio.Low-1.02) > 1e-9 || math.Abs(r.Ratio.High-1.02) > 1e-9 || r.Base != "no agent" {
		t.Errorf("ratio %+v to %q, want 1.02 exactly", r.Ratio, r.Base)
	}
}

func TestBars(t *testing.T) {
	row := func(median, low, high float64) bench.Row {
		return bench.Row{Value: bench.Interval{Median: 50}, Ratio: &bench.Interval{Median: median, Low: low, High: high}}
	}
	tests := []struct {
		name string
		bar  bench.Bar
		row  bench.Row
		want bool
	}{
		{"no loss is seen", bench.Bar{One: true, End: 1.01}, row(1.002, 0.995, 1.009), true},
		{"a small loss is seen", bench.Bar{One: true, End: 1.01}, row(1.004, 1.001, 1.008), false},
		{"too wide to say", bench.Bar{One: true, End: 1.01}, row(1.002, 0.98, 1.03), false},
		{"median and end", bench.Bar{Ratio: 1.02, End: 1.03}, row(1.015, 1.01, 1.029), true},
		{"the median is over", bench.Bar{Ratio: 1.02, End: 1.03}, row(1.021, 1.01, 1.029), false},
		{"a value", bench.Bar{Value: 50}, row(1, 1, 1), true},
		{"a value that is over", bench.Bar{Value: 49}, row(1, 1, 1), false},
		{"a ratio that was not measured", bench.Bar{Ratio: 2}, bench.Row{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.bar.Met(tt.row); got != tt.want {
				t.Errorf("met: %t, want %t", got, tt.want)
			}
		})
	}
}

func report() *bench.Report {
	base := bench.Series{Name: "no agent", Values: []float64{4100, 4120, 4090, 4110, 4105, 4099}}
	s := bench.Series{Name: "podwall, 8,000 pods", Values: []float64{4102, 4121, 4090, 4111, 4107, 4098}}
	slow := bench.Series{Name: "peer", Values: []float64{5102, 5121, 5090, 5111, 5107, 5098}}
	bar := &bench.Bar{Text: "no loss seen, ends at 1.01", One: true, End: 1.01}
	return &bench.Report{Command: "podwall-lab bench packets", Version: "v1", Date: "2026-01-01", Machine: bench.Machine{CPU: "some", Cores: 2, Kernel: "6.18"},
		Rows: []bench.Row{bench.Alone("established packet", "ns", base, nil), bench.Against("established packet", "ns", s, base, bar),
			bench.Against("established packet", "ns", slow, base, bar)}, Notes: []string{"a note"}}
}

func TestAReportSaysWhichBarsAreMissed(t *testing.T) {
	r := report()
	if n := r.Missed(); n != 1 {
		t.Errorf("%d rows missed their bar, want 1", n)
	}
	var table, page, data bytes.Buffer
	for _, err := range []error{r.WriteTable(&table), r.WriteMarkdown(&page), r.WriteJSON(&data)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{table.String(), page.String()} {
		for _, want := range []string{"established packet", "4104 [4090, 4121]", "1.000 [1.000, 1.000]", "met", "NOT MET", "no loss seen, ends at 1.01"} {
			if !strings.Contains(text, want) {
				t.Errorf("there is no %q in\n%s", want, text)
			}
		}
	}
	var again bench.Report
	if err := json.Unmarshal(data.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &again); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}
