// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package web measures by the reference setup's own scheme: ab asks one Service
// with two nginx pods, among 1,000 Services that do nothing, under a policy that
// selects every pod, with and without an agent.
//
// It owns the bed of that measurement: two nodes, the real API server with all
// objects, the real kube-proxy, nginx, ab, and the agents in turn. It believes
// an agent only when packets of a stranger are stopped. It returns rows and
// plots of package bench; it prints nothing and knows no command line. It never
// looks into an agent.
package web

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
)

// Programs are the paths of what runs in the bed.
type Programs struct {
	Agent, KubeAPI, KubeProxy, Nginx, AB string
}

// Peer is another agent to measure.
type Peer struct {
	Name string
	// Command is run by sh -c in the network namespace of each node, with
	// KUBECONFIG and NODE_NAME in its environment. Its turn ends with SIGTERM to
	// all its processes, and SIGKILL after ten seconds. What it put into the
	// kernel it must have taken away by then.
	Command string
}

// Config says what to measure.
type Config struct {
	Programs
	// Wiring is routed or bridge.
	Wiring lab.Wiring
	// Services is the number of those that do nothing.
	Services int
	// Pods are the numbers of pods behind them, growing, multiples of Services.
	Pods []int
	// Concurrency are the numbers of requests that ab keeps open.
	Concurrency []int
	// Requests bounds each run of ab, and so does Limit.
	Requests int
	Limit    time.Duration
	Rounds   int
	Peers    []Peer
	// Say is told how far the run is; it may be nil.
	Say func(string)
}

// maxPods keeps the addresses of a node's pods within one /24.
const maxPods = 20_000

// Check reports what cannot be measured so, before anything is started.
func (c Config) Check() error {
	if c.Wiring != lab.Routed && c.Wiring != lab.Bridge {
		return fmt.Errorf("wiring %q is not measured, want routed or bridge", c.Wiring)
	}
	if c.Services < 1 || c.Rounds < 1 || c.Requests < 1 || len(c.Pods) == 0 || len(c.Concurrency) == 0 {
		return errors.New("services, rounds, requests, numbers of pods and concurrency must all be there and above 0")
	}
	if c.Limit < time.Second {
		return fmt.Errorf("limit %s: ab counts in seconds", c.Limit)
	}
	last := 0
	for _, n := range c.Pods {
		if n <= last || n%c.Services != 0 || n > maxPods {
			return fmt.Errorf("%d pods: the numbers must grow, be multiples of the %d services, and end at %d", n,
				c.Services, maxPods)
		}
		last = n
	}
	for _, n := range c.Concurrency {
		// Every request is an open file of ab, and 1,024 are usual.
		if n < 1 || n > 1000 {
			return fmt.Errorf("concurrency %d: want 1 to 1000", n)
		}
	}
	names := map[string]bool{noAgent: true, noAgentAgain: true, podwall: true, ownProxy: true}
	for _, p := range c.Peers {
		if p.Name == "" || p.Command == "" || names[p.Name] {
			return fmt.Errorf("peer %q: it needs a command and a name of its own", p.Name)
		}
		names[p.Name] = true
	}
	return nil
}

// Result is what a run found.
type Result struct {
	Rows  []bench.Row
	Plots []bench.Plot
	Notes []string
}

// Run measures. The caller must have entered its own world, see netns.Enter. It
// takes minutes: for each number of pods, Rounds times each setting, and in each
// of these turns one run of ab for each concurrency. Nothing is left behind.
func Run(ctx context.Context, c Config) (res Result, err error) {
	if err := c.Check(); err != nil {
		return res, err
	}
	if c.Say == nil {
		c.Say = func(string) {}
	}
	s := &stage{Config: c}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.build(ctx); err != nil {
		return res, fmt.Errorf("building the bed of the measurement: %w", err)
	}
	for i, pods := range c.Pods {
		if err := s.grow(ctx, pods); err != nil {
			return res, fmt.Errorf("making %d pods: %w", pods, err)
		}
		l, err := s.level(ctx, pods)
		if err != nil {
			return res, fmt.Errorf("measuring with %d pods: %w", pods, err)
		}
		res.Rows = append(res.Rows, l.rows(c.Concurrency)...)
		if i == 0 || i == len(c.Pods)-1 { // the ends of the reference setup's own range
			res.Plots = append(res.Plots, l.plot(c.Concurrency))
		}
	}
	res.Notes = append(notes(), s.remarks...)
	return res, nil
}

// level measures all settings with the pods that there are.
func (s *stage) level(ctx context.Context, pods int) (*level, error) {
	settings := s.settings()
	l := newLevel(pods, settings)
	for round := range s.Rounds {
		for _, i := range order(len(settings), round) {
			set := settings[i]
			samples, err := s.turn(ctx, set)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, set.name, err)
			}
			l.add(set.name, samples)
			s.Say(fmt.Sprintf("%s pods, round %d of %d, %s: %s", thousands(pods), round+1, s.Rounds, set.name,
				inWords(s.Concurrency, samples)))
		}
	}
	return l, nil
}

// order is in which order n settings take their turns in a round. Each begins
// equally often, and each second round goes backwards: what one leaves behind
// for a moment must not always meet the same other one.
func order(n, round int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = (round/2 + i) % n
	}
	if round%2 == 1 {
		slices.Reverse(list)
	}
	return list
}
