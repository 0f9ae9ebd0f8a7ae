// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/podwall/podwall/internal/lab/bench"
)

// localPods is how many pods the node has at every size of the cluster.
const localPods = 80

// memory is the agent's memory over the number of pods, with the same pods on the
// node and the same policies, so that remote pods are all that grows.
func memory(ctx context.Context, cfg Config, r *bench.Report) error {
	sizes, local, perPod := []int{8_000, 50_000, 100_000}, localPods, 300.0
	if cfg.Quick {
		sizes, local, perPod = []int{200, 400}, 4, 0
	}
	peak, now := make([]bench.Series, len(sizes)), make([]bench.Series, len(sizes))
	for i, pods := range sizes {
		s := shape{nodes: pods / local, pods: pods, namespaces: 100, policies: 500}
		name := fmt.Sprintf("%d pods, %d policies", s.pods, s.policies)
		peak[i].Name, now[i].Name = name+", highest (VmHWM)", name+", resident"
		if err := cfg.weigh(ctx, s, &peak[i], &now[i]); err != nil {
			return err
		}
	}
	weighed(r, sizes, perPod, peak, now)
	return nil
}

// weighed adds the rows and the plot.
func weighed(r *bench.Report, sizes []int, perPod float64, peak, now []bench.Series) {
	const section = "memory over pods"
	for i, s := range peak {
		var bar *bench.Bar
		if sizes[i] == 8_000 {
			bar = upTo(60, "< 60 MiB")
		}
		r.Rows = append(r.Rows, bench.Alone(section, "MiB", s, bar), bench.Alone(section, "MiB", now[i], nil))
	}
	last := len(sizes) - 1
	more := float64(sizes[last] - sizes[0])
	r.Rows = append(r.Rows,
		bench.Alone(section, "MiB", slope("bytes for each further remote pod, highest", peak[0], peak[last], more),
			upTo(perPod, "< 300 B")),
		bench.Alone(section, "MiB", slope("bytes for each further remote pod, resident", now[0], now[last], more), nil))
	r.Plots = append(r.Plots, bench.Plot{Name: "control-memory", Title: "Memory of the agent",
		X: "pods of the cluster", Y: "MiB",
		Lines: []bench.Line{curve("highest (VmHWM)", sizes, peak), curve("resident", sizes, now)}})
}

// weigh starts the agent once a round and adds its memory after the first sync,
// in MiB.
func (c Config) weigh(ctx context.Context, s shape, peak, now *bench.Series) (err error) {
	w := &world{shape: s}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.build(ctx, c, false); err != nil {
		return err
	}
	for i := range c.Rounds {
		c.say("memory: %d pods, round %d", s.pods, i+1)
		if err := w.restart(); err != nil {
			return err
		}
		if _, err := w.agent.ready(ctx); err != nil {
			return err
		}
		pause(ctx, c.effort().rest)
		resident, highest, err := w.agent.Memory()
		if err != nil {
			return err
		}
		peak.Values, now.Values = append(peak.Values, highest/mebi), append(now.Values, resident/mebi)
	}
	return nil
}

// slope divides the growth by the number of pods, round by round, in bytes.
func slope(name string, from, to bench.Series, pods float64) bench.Series {
	s := bench.Series{Name: name}
	for i := range from.Values {
		s.Values = append(s.Values, (to.Values[i]-from.Values[i])*mebi/pods)
	}
	return s
}

func curve(name string, sizes []int, series []bench.Series) bench.Line {
	l := bench.Line{Name: name}
	for i, s := range series {
		l.Points = append(l.Points, bench.Point{X: float64(sizes[i]), Y: bench.Summarize(s.Values)})
	}
	return l
}
