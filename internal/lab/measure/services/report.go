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
		run.growth(r)
		r.Plots = append(r.Plots, run.plot())
	}
}

// plain reports whether only the number of Services tells the size from others.
func (s Size) plain() bool { return s == Size{Services: s.Services, Endpoints: 2} }

// growth compares the whole first packet with that of the first plain size. The two were not measured in turns.
func (run *runner) growth(r *bench.Report) {
	k := kinds()[0]
	var first *level
	for i := range run.found {
		l := &run.found[i]
		switch {
		case !l.size.plain():
			continue
		case first == nil:
			first = l
			continue
		}
		section := fmt.Sprintf("%s: first packet of a flow, next to %d Services", l.size, first.size.Services)
		for _, p := range l.order {
			var b *bench.Bar
			if p == podwall && l.size.Services == 30_000 && !run.cfg.Quick {
				b = most(1.3)
			}
			if base := first.series(p, k, true); p != oneService && len(base.Values) > 0 {
				r.Rows = append(r.Rows, bench.Against(section, k.unit, l.series(p, k, true), base, b))
			}
		}
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
			if len(row.values(f)) == 0 {
				continue
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
	values     func(figures) []float64 // none is no row
}

func controlRows(b bar) []controlRow {
	return []controlRow{
		{"start to the first sync", "ms", upTo(b.sync, "< 1 s"),
			func(f figures) []float64 { return milliseconds(f.sync) }},
		{"the first endpoint is replaced after that", "ms", nil,
			func(f figures) []float64 { return milliseconds(f.first) }},
		{"an endpoint is replaced", "ms", upTo(b.change, "p50 < 5 ms"),
			func(f figures) []float64 { return milliseconds(f.changes...) }},
		{"an endpoint is replaced, the slowest", "ms", upTo(b.slowest, fmt.Sprintf("p99 < %v ms", b.slowest)),
			func(f figures) []float64 { return milliseconds(slices.Max(f.changes)) }},
		{"processor time of a change", "ms", nil,
			func(f figures) []float64 { return milliseconds(f.work) }},
		{"highest resident memory", "MiB", upTo(b.memory, "< 80 MiB"),
			func(f figures) []float64 { return []float64{f.memory / mebi} }},
		{"100 endpoints a second are replaced", "ms", nil,
			func(f figures) []float64 { return milliseconds(f.rush...) }},
		{"100 endpoints a second are replaced, 99 of 100 within", "ms", upTo(b.rush, "p99 < 50 ms"),
			func(f figures) []float64 { return milliseconds(late(f.rush)...) }},
		{"100 endpoints a second are replaced, part of a core", "%", upTo(b.share, "< 30 %"),
			func(f figures) []float64 { return some(len(f.rush) > 0, 100*f.share) }},
		{"restart to the first change", "ms", nil,
			func(f figures) []float64 { return milliseconds(f.restart) }},
		{"restart, elements and rules that the kernel is sent", "", nil,
			func(f figures) []float64 { return some(true, float64(f.rewritten)) }},
	}
}

// late returns the time within which 99 of 100 are, if there are any.
func late(list []time.Duration) []time.Duration {
	if len(list) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[(len(sorted)*99-1)/100:][:1]
}

// some is a value that may be missing.
func some(is bool, v float64) []float64 {
	if !is {
		return nil
	}
	return []float64{v}
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
type bar struct{ sync, change, slowest, memory, rush, share, first, established float64 }

func barsOf(s Size) bar {
	b := bar{established: 1.005}
	switch s.Services {
	case 10:
		b.first = 0.55
	case 10_000:
		b.first = 0.6
		if s.Endpoints <= 2 {
			b.sync, b.change, b.slowest, b.memory, b.rush, b.share = 1000, 5, 15, 80, 50, 30
		}
	case 30_000:
		b.slowest = 40
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
			if s := l.above(name, k); len(s.Values) > 0 && l.size.plain() {
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
		"With kube-proxy an endpoint is replaced 1.2 s after the last change: it waits for a second after a sync on "+
			"purpose. With podwall it is 0.1 s.",
		"A restart is measured with a change that was made while no program ran: from the start until the kernel "+
			"has it.")
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
	r.Notes = append(r.Notes, fmt.Sprintf("kube-proxy is %s. It was measured up to %d endpoints in all, in "+
		"iptables mode up to %d.", strings.TrimPrefix(strings.TrimSpace(string(out)), "Kubernetes "), nftablesEndpoints,
		iptablesEndpoints))
	return nil
}
