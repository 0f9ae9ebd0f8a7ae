// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// shortWait is the time for calls that no pod may wait for.
const shortWait = time.Second

// closeWait is the time for closing a pod; a runtime waits two seconds in all.
const closeWait = 500 * time.Millisecond

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
		case <-p.now:
		}
		p.reconcile(ctx)
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
	unsaid := p.living()
	for _, k := range announced {
		_, runs := unsaid[k.Pod.Sandbox]
		delete(unsaid, k.Pod.Sandbox)
		if !runs && k.Pod.Network == Network && !p.runs(k.Pod.Sandbox) {
			err = errors.Join(err, p.Gate.Del(ctx, k.Pod.Sandbox))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unsaid)) {
		if p.runs(name) {
			err = errors.Join(err, p.Gate.Announce(ctx, unsaid[name].pod))
		}
	}
	if err != nil {
		p.Log.Warn("announcing running sandboxes failed", "err", err)
	}
}

// living drops the sandboxes whose network namespace is gone and returns the others.
// containerd (seen with 2.4) does not report the end of a sandbox that ran before
// containerd was restarted; its address may be another pod's by then.
func (p *Plugin) living() map[string]sandbox {
	p.mu.Lock()
	running := maps.Clone(p.running)
	p.mu.Unlock()
	for name, s := range running {
		if s.seen && missing(s.pod.Netns) {
			delete(running, name)
			p.mu.Lock()
			delete(p.running, name)
			p.mu.Unlock()
		}
	}
	return running
}

func (p *Plugin) runs(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.running[name]
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
