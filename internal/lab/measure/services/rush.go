// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"time"

	"github.com/podwall/podwall/internal/lab/measure/witness"
)

const (
	// rushRate is changes a second. It is measured from rushServices on: each change is one of another Service than
	// the changes of the seconds around it, so that no proxy can leave one out.
	rushRate     = 100
	rushServices = 10_000
)

// rush replaces endpoints of one Service after the other at a steady rate, and then puts all back.
func (w *world) rush(ctx context.Context, cfg Config, f *figures) error {
	rate, duration := rushRate, cfg.Rush
	switch {
	case duration == 0:
		return nil
	case cfg.Quick:
		rate, duration = min(rate, w.size.Services), min(duration, time.Second)
	case w.size.Services < rushServices:
		return nil
	}
	n := int(duration.Seconds() * float64(rate))
	starts, seen := make([]time.Time, n), make([]*witness.Arrival, n)
	before, err := w.program.CPU()
	if err != nil {
		return err
	}
	begin, tick := time.Now(), time.NewTicker(time.Second/time.Duration(rate))
	defer tick.Stop()
	for i := range n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if starts[i], seen[i], err = w.replace(i % w.size.Services); err != nil {
			return err
		}
	}
	after, err := w.program.CPU()
	if err != nil {
		return err
	}
	f.share = float64(after-before) / float64(time.Since(begin))
	for i, s := range seen {
		at, err := w.await(ctx, s)
		if err != nil {
			return err
		}
		f.rush = append(f.rush, at.Sub(starts[i]))
	}
	return w.allBack(ctx, min(n, w.size.Services), w.pause(cfg))
}

// allBack gives the first Services their endpoints again.
func (w *world) allBack(ctx context.Context, services int, pause time.Duration) error {
	for i := range services {
		if _, err := w.api.Put(w.size.slice(i, w.size.endpoints())); err != nil {
			return err
		}
	}
	return w.settle(ctx, pause)
}

// restart ends the program, replaces an endpoint, and starts it again.
func (w *world) restart(ctx context.Context, pause time.Duration, f *figures) error {
	if err := w.end(); err != nil {
		return err
	}
	_, seen, err := w.replace(0)
	if err != nil {
		return err
	}
	before := w.kernel.Changes()
	if w.program, err = w.proxy.start(w); err != nil {
		return err
	}
	at, err := w.await(ctx, seen)
	if err != nil {
		return err
	}
	f.restart = at.Sub(w.program.Started())
	if err := rest(ctx, pause); err != nil {
		return err
	}
	f.rewritten = w.kernel.Changes() - before
	return w.putBack(ctx, 0)
}
