// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package control measures what a change of the cluster costs the agent of one
// node: the time until the kernel has it, processor time, and memory. It runs the
// real program on a node of a lab, feeds it from a real API server or from a
// cluster that only this process has (package listwatch), and looks from outside:
// at the kernel's notifications, at /proc, at the agent's own pages.
//
// It never links the agent and asserts no figure: it returns rows with their
// bars. Only the pods of the one node exist; all others are objects.
package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/lab/bench"
)

// Config says what is measured and with which programs.
type Config struct {
	// Agent is the path of podwall-agent.
	Agent string
	// AgentArgs are added to the reference setup's own arguments.
	AgentArgs []string
	// KubeAPI is the path of the test API server; without it the part "api" is
	// left out.
	KubeAPI string
	// Rounds is how often each figure is taken.
	Rounds int
	// Quick takes small clusters and short times, to see that it works.
	Quick bool
	// Only are the parts that run; all if empty.
	Only []string
	// Progress is told what goes on; may be nil.
	Progress func(text string)
}

func (c Config) say(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}

// part is one cluster and what is measured in it.
type part struct {
	name string
	run  func(ctx context.Context, cfg Config, r *bench.Report) error
}

func parts() []part {
	return []part{{"api", api}, {"large", large}, {"tenants", tenants}, {"memory", memory}}
}

// Parts are the names that Config.Only knows.
func Parts() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// Run measures and adds rows, plots and notes to the report. The caller must have
// entered a world of its own (netns.Enter).
func Run(ctx context.Context, cfg Config, r *bench.Report) error {
	for _, p := range parts() {
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, p.name) {
			continue
		}
		if p.name == "api" && cfg.KubeAPI == "" {
			if len(cfg.Only) > 0 {
				return errors.New("the part api needs the test API server: build it with make kubeapi and name it " +
					"with --kubeapi")
			}
			r.Notes = append(r.Notes, "The part api was left out: there is no test API server.")
			continue
		}
		if err := p.run(ctx, cfg, r); err != nil {
			return fmt.Errorf("measuring %s: %w", p.name, err)
		}
	}
	return nil
}

// effort is how much is done for one value.
type effort struct {
	turns, rare int           // cycles of cheap and of costly changes in a round
	rest        time.Duration // how long an idle agent is watched in a round
	changes     int           // of the load, in a round
	lag         int           // of the load
	// settle is how long the kernel is given to take memory back: it waits for
	// readers, and frees sets in the background.
	settle time.Duration
}

func (e effort) often() int  { return e.turns }
func (e effort) seldom() int { return e.rare }

// effort shares half a minute of rest and a minute of load between the rounds.
func (c Config) effort() effort {
	if c.Quick {
		return effort{turns: 3, rare: 1, rest: 200 * time.Millisecond, changes: 40, lag: 25,
			settle: 100 * time.Millisecond}
	}
	return effort{turns: 100, rare: 10, rest: 30 * time.Second / time.Duration(c.Rounds),
		changes: 60 * rate / c.Rounds, lag: 5 * rate / 4, settle: 2 * time.Second}
}

// size returns the shape, or a small one of the same kind.
func (c Config) size(s shape) shape {
	if c.Quick {
		return shape{nodes: 10, pods: 160, namespaces: min(s.namespaces, 10), policies: min(s.policies, 20),
			services: min(s.services, 5), big: 40}
	}
	return s
}

// The clusters: that of the issue behind the real API server, a large one, and
// one of many small tenants that write many policies.
func api(ctx context.Context, cfg Config, r *bench.Report) error {
	s := cfg.size(shape{nodes: 100, pods: 8_000, namespaces: 100, policies: 500, services: 1_000, big: 2_000})
	return cfg.measure(ctx, r, "API server, "+s.String(), s, true, bars{policy: 100, sync: 1000, idle: 0.5,
		peak: 60 << 20})
}

func large(ctx context.Context, cfg Config, r *bench.Report) error {
	s := cfg.size(shape{nodes: 1_000, pods: 100_000, namespaces: 1_000, policies: 10_000, big: 10_000})
	return cfg.measure(ctx, r, "synthetic, "+s.String(), s, false, bars{pod: 10, load: 100})
}

func tenants(ctx context.Context, cfg Config, r *bench.Report) error {
	s := cfg.size(shape{nodes: 54, pods: 5_413, namespaces: 604, policies: 13_678, big: 500})
	return cfg.measure(ctx, r, fmt.Sprintf("tenants, %d namespaces, %s", s.namespaces, s), s, false, bars{})
}

func (s shape) String() string {
	return fmt.Sprintf("%d pods, %d policies", s.pods, s.policies)
}
