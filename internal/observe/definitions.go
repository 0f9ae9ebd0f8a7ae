// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "podwall_"

// builder makes and registers metrics, and keeps for each what the reference
// page says about it. So a metric cannot exist without being documented.
type builder struct {
	reg         prometheus.Registerer
	prefix      string // of the names
	definitions []definition
}

func newBuilder(reg prometheus.Registerer) *builder { return &builder{reg: reg, prefix: prefix} }

// definition is what people read about a metric.
type definition struct {
	name, kind, labels, help string
}

func (b *builder) define(name, kind, help, labels string) {
	b.definitions = append(b.definitions, definition{b.prefix + name, kind, labels, help})
}

func (b *builder) gauge(name, help string) prometheus.Gauge {
	b.define(name, "gauge", help, "")
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: b.prefix + name, Help: help})
	b.reg.MustRegister(g)
	return g
}

// predicate is a gauge of 0 or 1 that is computed at each scrape.
func (b *builder) predicate(name, help string, holds func() bool) {
	b.define(name, "gauge", help, "")
	b.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: b.prefix + name, Help: help}, func() float64 {
		if holds() {
			return 1
		}
		return 0
	}))
}

// function is a gauge that is computed at each scrape.
func (b *builder) function(name, help string, compute func() float64) {
	b.define(name, "gauge", help, "")
	b.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: b.prefix + name, Help: help}, compute))
}

// computed are gauges that are computed at each scrape.
func (b *builder) computed(name, help, label string, values []string, compute func(value string) float64) {
	b.define(name, "gauge", help, closed(label, values))
	for _, value := range values {
		b.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: b.prefix + name, Help: help,
			ConstLabels: prometheus.Labels{label: value}},
			func() float64 { return compute(value) }))
	}
}

// info is a gauge that is always 1; its labels hold the information.
func (b *builder) info(name, help string, labels prometheus.Labels) {
	b.define(name, "gauge", help, "`"+strings.Join(slices.Sorted(maps.Keys(labels)), "`, `")+"`")
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: b.prefix + name, Help: help, ConstLabels: labels})
	g.Set(1)
	b.reg.MustRegister(g)
}

func (b *builder) gauges(name, help, label string, values ...string) *prometheus.GaugeVec {
	v := b.laterGauges(name, help, label, values...)
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

// laterGauges do not exist before they are first set.
func (b *builder) laterGauges(name, help, label string, values ...string) *prometheus.GaugeVec {
	b.define(name, "gauge", help, closed(label, values))
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: b.prefix + name, Help: help}, []string{label})
	b.reg.MustRegister(v)
	return v
}

func (b *builder) counter(name, help string) prometheus.Counter {
	b.define(name, "counter", help, "")
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: b.prefix + name, Help: help})
	b.reg.MustRegister(c)
	return c
}

// counters start at 0 for every value, so that a rate sees the first event.
func (b *builder) counters(name, help, label string, values ...string) *prometheus.CounterVec {
	v := b.laterCounters(name, help, label, values...)
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

// laterCounters do not exist before they are first counted.
func (b *builder) laterCounters(name, help, label string, values ...string) *prometheus.CounterVec {
	b.define(name, "counter", help, closed(label, values))
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: b.prefix + name, Help: help}, []string{label})
	b.reg.MustRegister(v)
	return v
}

func (b *builder) histograms(name, help string, buckets []float64, label string,
	values ...string) *prometheus.HistogramVec {
	b.define(name, "histogram", help, closed(label, values))
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: b.prefix + name, Help: help, Buckets: buckets},
		[]string{label})
	b.reg.MustRegister(v)
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

func (b *builder) histogram(name, help string, buckets []float64) prometheus.Histogram {
	b.define(name, "histogram", help, "")
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: b.prefix + name, Help: help, Buckets: buckets})
	b.reg.MustRegister(h)
	return h
}

// closed writes a label with all of its values: `kind`: delta, full.
func closed(label string, values []string) string {
	return "`" + label + "`: " + strings.Join(values, ", ")
}

// Reference writes docs/metrics.md. A test compares the committed file with
// it.
func Reference(out io.Writer) error {
	b := newBuilder(prometheus.NewRegistry())
	newMetrics(b, "", computedValues{})
	newServiceMetrics(b)
	slices.SortFunc(b.definitions, func(x, y definition) int { return strings.Compare(x.name, y.name) })
	var text strings.Builder
	text.WriteString(referenceHead())
	for _, d := range b.definitions {
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", d.name, d.kind, cmp.Or(d.labels, "none"), d.help)
	}
	text.WriteString(referenceAlerts())
	_, err := io.WriteString(out, text.String())
	return err
}

func referenceHead() string {
	return "# Metrics of podwall-agent\n\n" +
		"<!-- Generated from internal/observe. Change it there, then run: go test ./internal/observe -update -->\n\n" +
		"They are off by default; `--metrics-port` switches them on. The names start with\n" +
		"`" + prefix + "`; the figures of the Go runtime (`go_`) and of the process (`process_`)\n" +
		"are there as well. No label ever holds a pod or an address; one metric has names of\n" +
		"policies, and only with `--denied-flows-to=counters`.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n"
}
