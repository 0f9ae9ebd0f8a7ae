// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/lab/bench"
)

// level is what was found at one size.
type level struct {
	size    Size
	order   []string // the proxies
	control map[string]figures
	packets map[measured][]float64
}

// measured is a kind of packet through a proxy, to a pod or to Services.
type measured struct {
	proxy, what string
	service     bool
}

func newLevel(s Size) *level {
	return &level{size: s, control: map[string]figures{}, packets: map[measured][]float64{}}
}

func (l *level) add(proxy string, k kind, pod, service float64) {
	for _, x := range []struct {
		service bool
		value   float64
	}{{false, pod}, {true, service}} {
		at := measured{proxy, k.what, x.service}
		l.packets[at] = append(l.packets[at], x.value)
	}
}

// series are the values of a kind, to Services or to a pod.
func (l *level) series(proxy string, k kind, service bool) bench.Series {
	return bench.Series{Name: proxy, Values: l.packets[measured{proxy, k.what, service}]}
}

// pod is a packet to a pod where one rule is all that translates: what each kind costs without a proxy.
func (l *level) pod(k kind) bench.Series {
	s := l.series(oneService, k, false)
	s.Name = "a pod, no proxy"
	return s
}

// above is what a packet to a Service costs more than one to a pod without a proxy, round by round.
func (l *level) above(proxy string, k kind) bench.Series {
	pod, service := l.pod(k), l.series(proxy, k, true)
	s := bench.Series{Name: proxy}
	for i, v := range service.Values {
		s.Values = append(s.Values, v-pod.Values[i])
	}
	return s
}

// report adds rows and plots.
func (run *runner) report(r *bench.Report) {
	for _, l := range run.found {
		l.rows(r, run.cfg.Quick)
	}
	if len(run.found) > 1 {
		r.Plots = append(r.Plots, run.plot())
	}
}

func (l *level) rows(r *bench.Report, quick bool) {
	bars := barsOf(l.size)
	if quick {
		bars = bar{}
	}
	for _, row := range controlRows(bars) {
		for _, p := range l.order {
			f := l.control[p]
			if len(f.changes) == 0 {
				continue
			}
			b := row.bar
			if p != podwall {
				b = nil
			}
			r.Rows = append(r.Rows, bench.Alone(fmt.Sprintf("%s: %s", l.size, row.what), row.unit,
				bench.Series{Name: p, Values: row.values(f)}, b))
		}
	}
	for _, k := range kinds() {
		l.kindRows(r, k, bars)
	}
}

// controlRow is a figure of a program.
type controlRow struct {
	what, unit string
	bar        *bench.Bar
	values     func(figures) []float64
}

func controlRows(b bar) []controlRow {
	return []controlRow{
		{"start to the first sync", "ms", upTo(b.sync, "< 1 s"),
			func(f figures) []float64 { return milliseconds(f.sync) }},
		{"an endpoint is replaced", "ms", upTo(b.change, "p50 < 5 ms"),
			func(f figures) []float64 { return milliseconds(f.changes...) }},
		{"an endpoint is replaced, the slowest", "ms", nil,
			func(f figures) []float64 { return milliseconds(slices.Max(f.changes)) }},
		{"processor time of a change", "ms", nil,
			func(f figures) []float64 { return milliseconds(f.work) }},
		{"highest resident memory", "MiB", upTo(b.memory, "< 80 MiB"),
			func(f figures) []float64 { return []float64{f.memory / mebi} }},
	}
}

// kindRows have what a kind costs to Services and to a pod beside them, and what a Service adds, beside kube-proxy's.
func (l *level) kindRows(r *bench.Report, k kind, bars bar) {
	section := fmt.Sprintf("%s: %s", l.size, k.what)
	pod := l.pod(k)
	r.Rows = append(r.Rows, bench.Alone(section, k.unit, pod, nil))
	for _, p := range l.order {
		r.Rows = append(r.Rows, bench.Against(section, k.unit, l.series(p, k, true), pod, nil))
	}
	for _, p := range l.order {
		if p != oneService {
			r.Rows = append(r.Rows, bench.Against(section+", to a pod", k.unit, l.series(p, k, false), pod, nil))
		}
	}
	if k.what == kinds()[0].what {
		l.added(r, k, section+", what a Service adds", bars)
	}
	if k.what == kinds()[1].what {
		l.translated(r, k, section+", next to plain DNAT", bars)
	}
}

// added compares what a Service adds with kube-proxy's nftables mode, where that was measured.
func (l *level) added(r *bench.Report, k kind, section string, bars bar) {
	base := l.above(nftables, k)
	for _, p := range l.order {
		switch {
		case len(base.Values) == 0 || p == nftables:
			r.Rows = append(r.Rows, bench.Alone(section, k.unit, l.above(p, k), nil))
		case p == podwall:
			r.Rows = append(r.Rows, bench.Against(section, k.unit, l.above(p, k), base, most(bars.first)))
		default:
			r.Rows = append(r.Rows, bench.Against(section, k.unit, l.above(p, k), base, nil))
		}
	}
}

// translated compares an established packet with one that a single rule translates.
func (l *level) translated(r *bench.Report, k kind, section string, bars bar) {
	base := l.series(oneService, k, true)
	for _, p := range l.order {
		switch p {
		case oneService:
		case podwall:
			r.Rows = append(r.Rows, bench.Against(section, k.unit, l.series(p, k, true), base, most(bars.established)))
		default:
			r.Rows = append(r.Rows, bench.Against(section, k.unit, l.series(p, k, true), base, nil))
		}
	}
}

// most is a bar for a ratio.
func most(v float64) *bench.Bar {
	if v == 0 {
		return nil
	}
	return &bench.Bar{Text: fmt.Sprintf("median ≤ %v", v), Ratio: v}
}

// bar are the goals of a size; 0 is none.
type bar struct{ sync, change, memory, first, established float64 }

func barsOf(s Size) bar {
	b := bar{established: 1.005}
	switch s.Services {
	case 10:
		b.first = 0.55
	case 10_000:
		b.first = 0.6
		if s.Endpoints <= 2 {
			b.sync, b.change, b.memory = 1000, 5, 80
		}
	}
	return b
}

func upTo(v float64, text string) *bench.Bar {
	if v == 0 {
		return nil
	}
	return &bench.Bar{Text: text, Value: v}
}

func milliseconds(list ...time.Duration) (values []float64) {
	for _, d := range list {
		values = append(values, float64(d)/float64(time.Millisecond))
	}
	return values
}

// plot draws the first packet against the number of Services.
func (run *runner) plot() bench.Plot {
	k := kinds()[0]
	p := bench.Plot{Name: "services-first", Title: "First packet of a flow to a Service", X: "Services",
		Y: k.unit + " above a packet to a pod without a proxy", LogX: true}
	for _, name := range []string{podwall, nftables, iptables} {
		line := bench.Line{Name: name}
		for _, l := range run.found {
			if s := l.above(name, k); len(s.Values) > 0 {
				x := float64(l.size.Services)
				line.Points = append(line.Points, bench.Point{X: x, Y: bench.Summarize(s.Values)})
			}
		}
		if len(line.Points) > 0 {
			p.Lines = append(p.Lines, line)
		}
	}
	return p
}

// notes say what the report cannot show.
func (run *runner) notes(r *bench.Report) error {
	r.Notes = append(r.Notes, "Every second Service has TCP, the others UDP. Each flow goes to another Service, in "+
		"random order; \"plain DNAT\" is one Service by one rule. Packets to a pod next to the Services show what "+
		"those cost who does not call them.",
		"An endpoint is replaced 1.2 s after the last change: kube-proxy waits for a second after a sync on purpose.")
	if !run.meter.RealTime() {
		r.Notes = append(r.Notes, "The meter had no real time priority: intervals are wider than need be.")
	}
	if run.cfg.KubeProxy == "" {
		r.Notes = append(r.Notes, "kube-proxy was not measured: there is no program. `make kube-proxy` builds it.")
		return nil
	}
	out, err := exec.Command(run.cfg.KubeProxy, "--version").Output()
	if err != nil {
		return fmt.Errorf("asking kube-proxy for its version: %w", err)
	}
	r.Notes = append(r.Notes, fmt.Sprintf("kube-proxy is %s. Its iptables mode was measured up to %d Services.",
		strings.TrimPrefix(strings.TrimSpace(string(out)), "Kubernetes "), iptablesServices))
	return nil
}
