// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gatenri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// shortWait is the time for what nobody must wait for.
const shortWait = time.Second

// period is how often the agent is asked what it knows: one that was started
// again knows nothing.
const period = 5 * time.Second

// follow keeps the agent's announcements equal to what runs, until ctx ends.
func (p *Plugin) follow(ctx context.Context) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.reconcile(ctx)
		}
	}
}

// reconcile announces what runs and is not announced, and withdraws what was
// announced by us and does not run. It does not wait for the kernel.
func (p *Plugin) reconcile(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, period)
	defer cancel()
	announced, err := p.Gate.List(ctx)
	if err != nil {
		return // the next time; RunPodSandbox complains
	}
	p.mu.Lock()
	missing := maps.Clone(p.running)
	p.mu.Unlock()
	for _, k := range announced {
		_, runs := missing[k.Pod.Sandbox]
		delete(missing, k.Pod.Sandbox)
		if !runs && k.Pod.Network == Network && !p.runs(k.Pod.Sandbox) {
			err = errors.Join(err, p.Gate.Del(ctx, k.Pod.Sandbox))
		}
	}
	for _, sandbox := range slices.Sorted(maps.Keys(missing)) {
		if p.runs(sandbox) {
			err = errors.Join(err, p.Gate.Tell(ctx, missing[sandbox]))
		}
	}
	if err != nil {
		p.Log.Warn("announcing what runs", "err", err)
	}
}

func (p *Plugin) runs(sandbox string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.running[sandbox]
	return ok
}

// logger leads the library's log into ours. What it says is for its developers.
type logger struct{ log *slog.Logger }

func (l logger) Debugf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}

func (l logger) Infof(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}

func (l logger) Warnf(ctx context.Context, format string, args ...any) {
	l.log.WarnContext(ctx, fmt.Sprintf(format, args...))
}

func (l logger) Errorf(ctx context.Context, format string, args ...any) {
	l.log.ErrorContext(ctx, fmt.Sprintf(format, args...))
}
