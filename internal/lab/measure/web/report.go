// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/podwall/podwall/internal/lab/bench"
)

// level is what was measured with one number of pods: for each setting and
// round, a sample for each concurrency.
type level struct {
	pods     int
	settings []string // the base is the first
	samples  map[string][][]sample
}

// newLevel puts the second base beside the first.
func newLevel(pods int, settings []setting) *level {
	l := &level{pods: pods, settings: []string{noAgent, noAgentAgain}, samples: map[string][][]sample{}}
	for _, s := range settings {
		if s.on != nil {
			l.settings = append(l.settings, s.name)
		}
	}
	return l
}

func (l *level) add(setting string, round []sample) {
	l.samples[setting] = append(l.samples[setting], round)
}

// series is one figure of each round of a setting.
func (l *level) series(setting string, figure func(round []sample) float64) bench.Series {
	s := bench.Series{Name: setting}
	for _, round := range l.samples[setting] {
		s.Values = append(s.Values, figure(round))
	}
	return s
}

// cpuBar is the design's bar for a request on a connection of its own.
func cpuBar() *bench.Bar {
	return &bench.Bar{Text: "CPU per request ≤ 1.02, interval ends ≤ 1.03", Ratio: 1.02, End: 1.03}
}

// rows are the sections of a level: the rate at each concurrency, then the CPU
// time at each, then that of all requests.
func (l *level) rows(concurrency []int) (list []bench.Row) {
	for i, c := range concurrency {
		section := fmt.Sprintf("QPS, %s pods, concurrency %d (ratio: loss)", thousands(l.pods), c)
		list = append(list, l.section(section, "requests/s", nil, true,
			func(r []sample) float64 { return r[i].perSecond })...)
	}
	for i, c := range concurrency {
		section := fmt.Sprintf("CPU of nginx and ab, %s pods, concurrency %d", thousands(l.pods), c)
		list = append(list, l.section(section, "µs/request", nil, false,
			func(r []sample) float64 { return r[i].cpu() })...)
	}
	list = append(list, l.section(fmt.Sprintf("CPU of nginx and ab, %s pods, all requests", thousands(l.pods)),
		"µs/request", cpuBar(), false, func(r []sample) float64 { return total(r).cpu() })...)
	return append(list, l.section(fmt.Sprintf("CPU of the whole machine, %s pods, all requests", thousands(l.pods)),
		"µs/request", nil, false, func(r []sample) float64 { return total(r).whole() })...)
}

// section has a row for each setting. A rate is better when it is higher, so
// its ratio is turned around: above 1 is always loss. The bar is ours.
func (l *level) section(name, unit string, bar *bench.Bar, rate bool, figure func([]sample) float64) []bench.Row {
	base := l.series(l.settings[0], figure)
	list := []bench.Row{bench.Alone(name, unit, base, nil)}
	for _, setting := range l.settings[1:] {
		s := l.series(setting, figure)
		var own *bench.Bar
		if setting == podwall || setting == ownProxy {
			own = bar
		}
		row := bench.Against(name, unit, s, base, own)
		if rate {
			loss := bench.Summarize(bench.Ratios(base, s))
			row.Ratio = &loss
		}
		list = append(list, row)
	}
	return list
}

// total is all runs of a round as one.
func total(round []sample) (t sample) {
	for _, s := range round {
		t.requests += s.requests
		t.asking += s.asking
		t.serving += s.serving
		t.machine += s.machine
	}
	return t
}

// plot is the reference setup's own curve.
func (l *level) plot(concurrency []int) bench.Plot {
	p := bench.Plot{Name: fmt.Sprintf("web-%d", l.pods), Title: fmt.Sprintf("Requests per second, %s pods",
		thousands(l.pods)),
		X: "ab concurrency", Y: "QPS", LogX: true}
	for _, setting := range l.settings {
		line := bench.Line{Name: setting}
		for i, c := range concurrency {
			s := l.series(setting, func(r []sample) float64 { return r[i].perSecond })
			line.Points = append(line.Points, bench.Point{X: float64(c), Y: bench.Summarize(s.Values)})
		}
		p.Lines = append(p.Lines, line)
	}
	return p
}

func notes() []string {
	return []string{
		"All ratios are above 1 where something is lost: that of a rate is base / setting, that of a cost is " +
			"setting / base.",
		"kube-proxy runs on both nodes, but with \"" + ownProxy + "\": there it is stopped, and the agents have " +
			"taken its place.",
		"QPS is ab's own figure. All runs on one machine: ab, both nginx and both nodes share its processors.",
		"CPU of nginx and ab is what the kernel accounted to these processes. It holds the network stack's work as " +
			"far as it was done in their name, with softirqs on return from a send; what ksoftirqd and other " +
			"processes did for them is missing. Kernels with CONFIG_IRQ_TIME_ACCOUNTING leave softirqs out of it.",
		"CPU of the whole machine has all of that, and the agents, kube-proxy, the API server and everything else " +
			"that ran; it is counted in ticks of 10 ms.",
		"The pods that do nothing are objects, and namespaces with an address on the two real nodes; no nginx runs " +
			"in them.",
	}
}

// inWords is a round for somebody who waits.
func inWords(concurrency []int, round []sample) string {
	var list []string
	for i, s := range round {
		list = append(list, fmt.Sprintf("%d: %.0f/s", concurrency[i], s.perSecond))
	}
	return strings.Join(list, ", ") + fmt.Sprintf("; %.1f µs CPU a request", total(round).cpu())
}

// thousands writes a number below a million for people.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
