// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/lab/measure/witness"
)

// figures are what a proxy's program costs. It is zero for rules that no program writes.
type figures struct {
	// sync is the time from the start of the program until the kernel had all Services.
	sync time.Duration
	// first is the time from the API server's event until the kernel had the first endpoint that was replaced after
	// that: a proxy may have other work then.
	first time.Duration
	// changes are the times from the API server's event until the kernel had a replaced endpoint.
	changes []time.Duration
	// work is processor time for each of them, idle time included.
	work time.Duration
	// rush are the same times while many endpoints are replaced, and share is the part of a processor that the
	// program took meanwhile.
	rush  []time.Duration
	share float64
	// restart is the time from a second start until the kernel had a change that was made before it, and rewritten
	// the number of elements and rules that the program sent.
	restart   time.Duration
	rewritten uint64
	// memory is the highest resident memory of the program, in bytes.
	memory float64
}

func (f figures) String() string {
	if len(f.changes) == 0 {
		return "no program"
	}
	return fmt.Sprintf("first sync %s, a change %s at most, %.0f MiB", f.sync.Round(time.Millisecond),
		slices.Max(f.changes).Round(time.Millisecond), f.memory/mebi)
}

const mebi = 1 << 20

// pause is between two changes.
func (w *world) pause(c Config) time.Duration {
	if c.Quick {
		return 100 * time.Millisecond
	}
	return w.proxy.pause
}

// control fills the kernel, changes Services one after the other, and ends the program.
func (w *world) control(ctx context.Context, cfg Config) (f figures, err error) {
	if w.proxy.start == nil {
		return f, w.proxy.rules(w)
	}
	if w.kernel, err = witness.Listen(w.node.NS.FD()); err != nil {
		return f, err
	}
	var all []netip.Addr
	for i := range w.size.Services {
		all = append(all, w.size.clusterAddr(i))
	}
	seen := w.kernel.Expect(false, all...)
	if w.program, err = w.proxy.start(w); err != nil {
		return f, err
	}
	at, err := w.await(ctx, seen)
	if err != nil {
		return f, fmt.Errorf("the first sync: %w", err)
	}
	f.sync = at.Sub(w.program.Started())
	// This process holds all objects: while it collects garbage it hears late what the kernel tells.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if err := rest(ctx, w.pause(cfg)); err != nil {
		return f, err
	}
	if f.first, err = w.change(ctx, 0, w.pause(cfg)); err != nil {
		return f, fmt.Errorf("the first change: %w", err)
	}
	if err := rest(ctx, w.pause(cfg)); err != nil { // each change that follows comes alone
		return f, err
	}
	if f.changes, f.work, err = w.changes(ctx, cfg.Changes, w.pause(cfg)); err != nil {
		return f, err
	}
	if _, f.memory, err = w.program.Memory(); err != nil {
		return f, err
	}
	if err := w.rush(ctx, cfg, &f); err != nil {
		return f, fmt.Errorf("many changes: %w", err)
	}
	if err := w.restart(ctx, w.pause(cfg), &f); err != nil {
		return f, fmt.Errorf("a restart: %w", err)
	}
	if err := w.settle(ctx, w.pause(cfg)); err != nil {
		return f, fmt.Errorf("the last change: %w", err)
	}
	return f, w.end()
}

func rest(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// changes replaces endpoints of Services that packets are not sent to, and puts them back.
func (w *world) changes(ctx context.Context, n int, pause time.Duration) (list []time.Duration, work time.Duration,
	err error) {
	before, err := w.program.CPU()
	if err != nil {
		return nil, 0, err
	}
	for i := range n {
		took, err := w.change(ctx, i%w.size.Services, pause)
		if err != nil {
			return nil, 0, fmt.Errorf("change %d of %d: %w", i+1, n, err)
		}
		list = append(list, took)
		if err := rest(ctx, pause); err != nil {
			return nil, 0, err
		}
	}
	after, err := w.program.CPU()
	// Half of the changes put back what the other half replaced.
	return list, (after - before) / time.Duration(2*n), err
}

// change replaces the last endpoint of a Service by a fresh one, and returns how long that took. Then it puts the
// old one back: packets must find a pod.
func (w *world) change(ctx context.Context, i int, pause time.Duration) (time.Duration, error) {
	start, seen, err := w.replace(i)
	if err != nil {
		return 0, err
	}
	at, err := w.await(ctx, seen)
	if err != nil {
		return 0, err
	}
	if err := rest(ctx, pause); err != nil {
		return 0, err
	}
	return at.Sub(start), w.putBack(ctx, i)
}

// replace replaces the last endpoint of a Service by a fresh one, and returns when, and what is told of it.
func (w *world) replace(i int) (time.Time, *witness.Arrival, error) {
	w.fresh++
	list, fresh := w.size.endpoints(), w.size.freshAddr(w.fresh)
	list[len(list)-1] = fresh
	seen := w.kernel.Expect(false, fresh)
	start, err := w.api.Put(w.size.slice(i, list))
	return start, seen, err
}

// settle waits until the kernel has all changes. An endpoint that is put back is one that other Services have, too, so
// what is told of it may be about those; the last Service gets one that no other one has. Its change may come before
// theirs, as podwall is fair between namespaces: so nothing else may come for a pause after it.
func (w *world) settle(ctx context.Context, pause time.Duration) error {
	_, seen, err := w.replace(w.size.Services - 1)
	if err == nil {
		_, err = w.await(ctx, seen)
	}
	for before := uint64(0); err == nil && before != w.kernel.Changes(); {
		before = w.kernel.Changes()
		err = rest(ctx, pause)
	}
	return err
}

// putBack gives a Service its first endpoints again.
func (w *world) putBack(ctx context.Context, i int) error {
	back := w.size.endpoints()
	seen := w.kernel.Expect(false, back[len(back)-1])
	if _, err := w.api.Put(w.size.slice(i, back)); err != nil {
		return err
	}
	if _, err := w.await(ctx, seen); err != nil {
		return fmt.Errorf("putting an endpoint back: %w", err)
	}
	return nil
}
