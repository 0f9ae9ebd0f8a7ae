// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package packets measures what the agent's rules cost a packet and a request:
// real packets between network namespaces, through the rules that a real agent
// wrote, counted by package meter.
//
// For each setting there is a stage of its own: two nodes, whose agents read the
// setting's cluster, wrote their rules and ended. A switch of the kernel then
// takes the rules out of the packets' way and back, without moving anything else
// in memory, so a stage without its agent is its own base. Stages that are
// compared stand at the same time and take turns in random order.
//
// It stands beside the other measurements below package measure. It judges no
// figure: bars are given to package bench with the rows.
package packets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/measure/meter"
)

// Config says what is measured and with what.
type Config struct {
	// Groups are names of Groups; none means all.
	Groups []string
	// Wiring is that of the groups that do not compare wirings; empty for routed.
	Wiring lab.Wiring
	// Rounds is how often every setting is measured.
	Rounds int
	// Quick makes everything small: it shows that it works and measures nothing.
	Quick bool
	// Agent is the podwall-agent program, Meter the command line of a process
	// that calls meter.Serve.
	Agent string
	Meter []string
	// KubeAPI and KubeProxy are the programs that `make kubeapi` builds. With both,
	// the real kube-proxy is beside the agent in the rows that matter most; without,
	// a stand-in. Peers need KubeAPI.
	KubeAPI   string
	KubeProxy string
	Peers     []Peer
	// CNIBin is the directory of the plugins, for the CNI wirings.
	CNIBin string
	// Log is told what is going on; it may be nil.
	Log *slog.Logger
}

// Run measures and adds its rows, plots and notes to the report. The caller must
// have entered its own world, see netns.Enter.
func Run(ctx context.Context, cfg Config, r *bench.Report) (err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	groups, err := choose(cfg)
	if err != nil {
		return err
	}
	m, err := meter.Start(cfg.Meter)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	// Any seed would do; a fixed one gives the same order again.
	run := &runner{cfg: cfg, meter: m, chance: rand.New(rand.NewPCG(1, 2))}
	defer func() { err = errors.Join(err, run.close()) }()
	for _, g := range groups {
		if err := run.group(ctx, g, r); err != nil {
			return fmt.Errorf("measuring %s: %w", g.title, err)
		}
	}
	r.Notes = append(r.Notes, run.notes(groups)...)
	return nil
}

func (run *runner) notes(groups []group) []string {
	list := []string{"Base of a row: the same stage with the agent's tables dormant, in the same round. " +
		"It tracks connections and has a Service, by a stand-in for kube-proxy that drops invalid packets too, " +
		"unless the row says otherwise."}
	var real []string
	for _, g := range groups {
		if g.proxied && run.realProxy() {
			real = append(real, g.title)
		}
	}
	if len(real) > 0 {
		list = append(list, "Instead of the stand-in these have the rules of the real kube-proxy, nftables mode: "+
			strings.Join(real, ", ")+".")
	}
	if !run.meter.RealTime() {
		list = append(list, "The meter had no real time priority: intervals are wider than need be.")
	}
	return list
}

type runner struct {
	cfg    Config
	meter  *meter.Process
	chance *rand.Rand
	api    *apiserver.Server // nil until somebody needs it
}

func (run *runner) realProxy() bool { return run.cfg.KubeAPI != "" && run.cfg.KubeProxy != "" }

func (run *runner) close() error {
	if run.api == nil {
		return nil
	}
	return run.api.Close()
}

// server starts the API server when it is first needed. All beds have the same
// nodes, so one serves all.
func (run *runner) server(ctx context.Context, bed *lab.Bed) (*apiserver.Server, error) {
	if run.api != nil {
		return run.api, nil
	}
	api, err := apiserver.StartAlone(ctx, run.cfg.KubeAPI)
	if err != nil {
		return nil, err
	}
	run.api = api
	objects := proxyObjects(bed)
	if len(run.cfg.Peers) > 0 {
		seen, err := run.peerShape().objects()
		if err != nil {
			return api, err
		}
		objects = append(append(objects, "---\n"...), seen...)
	}
	return api, api.Apply(ctx, objects)
}

// peerShape is the cluster that peers see: the same that our own agent reads
// beside them.
func (run *runner) peerShape() shape {
	s := usual()
	if run.cfg.Quick {
		s.pods = quickPods
	}
	return s
}

// stage builds the stage of one setting.
func (run *runner) stage(ctx context.Context, g group, p plan) (*stage, error) {
	if g.proxied && run.realProxy() {
		p.found = bare // but for what kube-proxy brings
		p.before = func(ctx context.Context, bed *lab.Bed) error {
			api, err := run.server(ctx, bed)
			if err != nil {
				return err
			}
			return kubeProxies(ctx, run.cfg.KubeProxy, api, bed)
		}
	}
	return newStage(ctx, run.cfg, p)
}

// turn measures a stage in one mode.
func (run *runner) turn(ctx context.Context, s *stage, m mode, list []measurement) ([]float64, error) {
	if m.peer == nil {
		return s.observe(run.meter, m, list)
	}
	api, err := run.server(ctx, s.bed)
	if err != nil {
		return nil, err
	}
	return s.beside(ctx, run.meter, m, api, list)
}

// values are one series for each measurement of a group, by subject and mode.
type values map[place][]bench.Series

type place struct{ subject, mode int }

// group builds the stages of a group, measures round by round, and takes them
// down.
func (run *runner) group(ctx context.Context, g group, r *bench.Report) (err error) {
	var stages []*stage
	defer func() {
		for _, s := range stages {
			err = errors.Join(err, s.close())
		}
	}()
	for _, s := range g.subjects {
		run.cfg.Log.Info("building", "group", g.title, "setting", s.name)
		one, err := run.stage(ctx, g, s.plan)
		if err != nil {
			return fmt.Errorf("setting %q: %w", s.name, err)
		}
		stages = append(stages, one)
	}
	all := g.empty()
	for round := -1; round < run.cfg.Rounds; round++ { // the first one warms up
		run.cfg.Log.Info("measuring", "group", g.title, "round", round+1, "of", run.cfg.Rounds)
		for _, subject := range run.chance.Perm(len(stages)) {
			for _, mode := range run.chance.Perm(len(g.subjects[subject].modes)) {
				if err := ctx.Err(); err != nil {
					return err
				}
				got, err := run.turn(ctx, stages[subject], g.subjects[subject].modes[mode], g.measurements)
				if err != nil {
					return fmt.Errorf("setting %q: %w", g.subjects[subject].name, err)
				}
				if round >= 0 {
					all.add(place{subject, mode}, got)
				}
			}
		}
	}
	g.report(all, r)
	return nil
}

func (g group) empty() values {
	all := values{}
	for i, s := range g.subjects {
		for j, m := range s.modes {
			list := make([]bench.Series, len(g.measurements))
			for k := range list {
				list[k].Name = m.name
			}
			all[place{i, j}] = list
		}
	}
	return all
}

func (v values) add(p place, got []float64) {
	for i := range got {
		v[p][i].Values = append(v[p][i].Values, got[i])
	}
}

// report makes a section of each measurement: the base, the base again, and each
// setting beside its own base.
func (g group) report(all values, r *bench.Report) {
	for k, m := range g.measurements {
		section := g.title + ": " + m.what
		for i, s := range g.subjects {
			base := place{subject: i}
			if s.sharedBase {
				base = place{}
			}
			for j := range s.modes {
				series := all[place{i, j}][k]
				switch {
				case i == 0 && j == 0:
					r.Rows = append(r.Rows, bench.Alone(section, m.unit, series, nil))
				case base == place{i, j}: // its ratio is 1
				default:
					r.Rows = append(r.Rows, bench.Against(section, m.unit, series, all[base][k],
						s.barOf(m.kind, s.modes[j])))
				}
			}
		}
	}
	if g.plot != nil {
		r.Plots = append(r.Plots, g.plotted(all))
	}
}

// plotted draws ratio against size, one line for each measurement.
func (g group) plotted(all values) bench.Plot {
	p := *g.plot
	for k, m := range g.measurements {
		l := bench.Line{Name: m.what}
		for i, s := range g.subjects {
			if s.x == 0 {
				continue
			}
			on := slices.IndexFunc(s.modes, func(m mode) bool { return m.awake })
			ratio := bench.Summarize(bench.Ratios(all[place{i, on}][k], all[place{subject: i}][k]))
			l.Points = append(l.Points, bench.Point{X: s.x, Y: ratio})
		}
		p.Lines = append(p.Lines, l)
	}
	return p
}
