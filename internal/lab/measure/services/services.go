// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package services measures the service proxy beside kube-proxy: what a packet to a Service costs, and what a
// change of a Service costs the node.
//
// For each size and each proxy there is a world of its own: a node with a client and a server, and a cluster of
// Services that exists as objects of a small API server in this process. The proxy fills the node's kernel and is
// changed for a while, then it ends and its rules stay. Worlds of one size stand at the same time, and packets
// are sent through them in random order, round by round. A world with one Service by one rule shows what
// translation itself costs, and a pod there what no proxy costs. It judges no figure: bars are given to package
// bench with the rows.
package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/meter"
)

// Size is how many Services there are, and how many endpoints each of them has; also of which family they are and
// how pods are wired.
type Size struct {
	Services, Endpoints int
	IPv6, Bridge        bool
}

// maxEndpoints and maxServices are what the addresses of a world have room for.
const (
	maxEndpoints = 200
	maxServices  = 60_000
	// nftablesEndpoints and iptablesEndpoints, of all Services, are up to where kube-proxy's modes are measured:
	// they need minutes above.
	nftablesEndpoints = 50_000
	iptablesEndpoints = 2000
)

// ParseSize reads a size, as in 1000x2 or 1000x2-ipv6-bridge.
func ParseSize(text string) (Size, error) {
	numbers, words, more := strings.Cut(text, "-")
	services, endpoints, _ := strings.Cut(numbers, "x")
	s := Size{IPv6: strings.HasPrefix(words, "ipv6"), Bridge: strings.HasSuffix(words, "bridge")}
	var err1, err2 error
	s.Services, err1 = strconv.Atoi(services)
	s.Endpoints, err2 = strconv.Atoi(endpoints)
	known := words == "ipv6" || words == "bridge" || words == "ipv6-bridge"
	if more != known || err1 != nil || err2 != nil || s.Services < 3 || s.Endpoints < 1 || s.Services > maxServices ||
		s.Endpoints > maxEndpoints {
		return Size{}, fmt.Errorf("size %q: want SERVICESxENDPOINTS, 3x1 to %dx%d, as in 1000x2, also with "+
			"-ipv6, -bridge or -ipv6-bridge behind it", text, maxServices,
			maxEndpoints)
	}
	return s, nil
}

func (s Size) String() string {
	text := fmt.Sprintf("%d Services × %d", s.Services, s.Endpoints)
	if s.IPv6 {
		text += ", IPv6"
	}
	if s.Bridge {
		text += ", on a bridge"
	}
	return text
}

// Config says what is measured and with what.
type Config struct {
	// Agent is the podwall-agent program, KubeProxy that of kube-proxy, Meter the command line of a process that
	// calls meter.Serve. KubeProxy may be empty: then podwall is measured alone.
	Agent, KubeProxy string
	Meter            []string
	Sizes            []Size
	// Rounds is how often packets are measured, Changes how many endpoints are replaced one after the other.
	Rounds, Changes int
	// Rush is how long endpoints are replaced at a high rate, where there are many Services; 0 for not at all.
	Rush time.Duration
	// Quick makes batches small: it shows that it works and measures nothing.
	Quick bool
	// Progress is told how far the run is; it may be nil.
	Progress func(string)
}

func (c Config) say(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}

// Run measures and adds its rows, plots and notes to the report. The caller must have entered its own world, see
// netns.Enter. Nothing is left behind.
func Run(ctx context.Context, cfg Config, r *bench.Report) (err error) {
	if len(cfg.Sizes) == 0 || cfg.Rounds < 1 || cfg.Changes < 1 {
		return errors.New("sizes, rounds and changes must all be there and above 0")
	}
	m, err := meter.Start(cfg.Meter)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	// Any seed would do; a fixed one gives the same order again.
	run := &runner{cfg: cfg, meter: m, chance: rand.New(rand.NewPCG(1, 2))}
	for _, size := range cfg.Sizes {
		if err := run.size(ctx, size); err != nil {
			return fmt.Errorf("measuring %s: %w", size, err)
		}
	}
	run.report(r)
	return run.notes(r)
}

// runner measures size by size.
type runner struct {
	cfg    Config
	meter  *meter.Process
	chance *rand.Rand
	found  []level
}

// size builds the worlds of a size, measures, and takes them down.
func (run *runner) size(ctx context.Context, size Size) (err error) {
	var worlds []*world
	defer func() {
		for _, w := range worlds {
			err = errors.Join(err, w.close())
		}
	}()
	l := newLevel(size)
	for _, p := range run.cfg.proxies(size) {
		w := &world{size: size, proxy: p}
		worlds = append(worlds, w)
		run.cfg.say("%s, %s: begins", size, p.name)
		if err := w.build(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		got, err := w.control(ctx, run.cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		l.control[p.name] = got
		l.order = append(l.order, p.name)
		run.cfg.say("%s, %s: %s", size, p.name, got)
	}
	if err := run.packets(ctx, worlds, l); err != nil {
		return err
	}
	run.found = append(run.found, *l)
	return nil
}

// packets measures all worlds, round by round; the first round warms up.
func (run *runner) packets(ctx context.Context, worlds []*world, l *level) error {
	for round := -1; round < run.cfg.Rounds; round++ {
		run.cfg.say("%s, packets: round %d of %d", l.size, round+1, run.cfg.Rounds)
		for _, i := range run.chance.Perm(len(worlds)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, k := range run.chance.Perm(len(kinds())) {
				kind := kinds()[k]
				pod, service, err := worlds[i].packets(run.meter, kind, run.cfg.Quick)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", worlds[i].proxy.name, kind.what, err)
				}
				if round >= 0 {
					l.add(worlds[i].proxy.name, kind, pod, service)
				}
			}
		}
	}
	return nil
}
