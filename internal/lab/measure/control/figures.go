// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/lab/bench"
)

// bars are the goals of a cluster; 0 is none. Times are milliseconds.
type bars struct {
	pod, policy, load, sync float64
	idle                    float64 // part of a core, in hundredths
	peak                    float64 // bytes
}

// upTo is a bar for a value.
func upTo(v float64, text string) *bench.Bar {
	if v == 0 {
		return nil
	}
	return &bench.Bar{Text: text, Value: v}
}

// table collects values by section and name, in the order in which they come.
type table struct {
	order []row
	rows  map[row][]float64
}

type row struct{ section, unit, name string }

func (t *table) add(section, unit, name string, values ...float64) {
	if t.rows == nil {
		t.rows = map[row][]float64{}
	}
	k := row{section, unit, name}
	if _, ok := t.rows[k]; !ok {
		t.order = append(t.order, k)
	}
	t.rows[k] = append(t.rows[k], values...)
}

// report writes the rows, one section after the other.
func (t *table) report(r *bench.Report, bar func(row) *bench.Bar) {
	var sections []string
	for _, k := range t.order {
		if !slices.Contains(sections, k.section) {
			sections = append(sections, k.section)
		}
	}
	for _, s := range sections {
		for _, k := range t.order {
			if k.section == s {
				r.Rows = append(r.Rows, bench.Alone(k.section, k.unit, bench.Series{Name: k.name, Values: t.rows[k]},
					bar(k)))
			}
		}
	}
}

// measure takes all figures of one cluster.
func (c Config) measure(ctx context.Context, r *bench.Report, name string, s shape, real bool, b bars) (err error) {
	w := &world{shape: s}
	defer func() { err = errors.Join(err, w.close()) }()
	c.say("%s: begins", name)
	if err := w.build(ctx, c, real); err != nil {
		return err
	}
	m := &meter{world: w, cfg: c, name: name, effort: c.effort()}
	for _, take := range []func(context.Context) error{m.syncs, m.rest, m.changes, m.load, m.verify, m.kernelMemory} {
		if err := take(ctx); err != nil {
			return err
		}
	}
	if c.Quick {
		b = bars{} // they are for the whole cluster
	}
	m.table.report(r, b.of)
	return nil
}

// of returns the bar of a row.
func (b bars) of(k row) *bench.Bar {
	is := func(part string) bool { return strings.Contains(k.section, part) }
	late := strings.HasSuffix(k.name, "p99")
	switch {
	case is(sectionIdle) && late && strings.HasPrefix(k.name, "policy"):
		return upTo(b.policy, "p99 < 100 ms")
	case is(sectionIdle) && late && (strings.HasPrefix(k.name, "pod") || strings.HasPrefix(k.name, "label")):
		return upTo(b.pod, "p99 < 10 ms")
	case is(sectionLoad) && late:
		return upTo(b.load, "p99 < 100 ms")
	case k.name == rowEnforced:
		return upTo(b.sync, "< 1 s")
	case k.name == rowIdle:
		return upTo(b.idle, "<= 0.5 %")
	case k.name == rowPeak:
		return upTo(b.peak/mebi, "< 60 MiB")
	}
	return nil
}

const mebi = 1 << 20

// quantiles adds the median and the 99th of each list of times.
func (m *meter) quantiles(section string, times map[string][]float64) {
	for _, name := range slices.Sorted(maps.Keys(times)) {
		for _, q := range []struct {
			name string
			part float64
		}{{"p50", 0.5}, {"p99", 0.99}} {
			m.table.add(section, "ms", name+", "+q.name, bench.Quantile(times[name], q.part))
		}
	}
}

func bigName(pods int) string { return fmt.Sprintf("namespace of %d pods", pods) }
