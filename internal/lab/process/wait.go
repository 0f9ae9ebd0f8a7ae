// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Patience is the longest wait for anything unless somebody says otherwise: a big
// cluster on a busy machine. Nobody waits so long when all is well.
const Patience = 2 * time.Minute

// pause is the time between two looks unless somebody says otherwise.
const pause = 2 * time.Millisecond

// Wait describes what somebody waits for.
type Wait struct {
	// For says it in errors, as in "waiting for the rules".
	For string
	// Limit is the longest wait; zero means Patience.
	Limit time.Duration
	// Pause is the time between two looks; zero means 2 ms. It is longer where a look
	// takes long: what is waited for needs the processor more than the looks do.
	Pause time.Duration
	// Why says, for the error, why it does not hold yet; it may be nil.
	Why func() string
}

// Until returns when something holds. It is an error if that fails, takes longer
// than the limit, or if one of the processes ends; what they wrote last is in it.
func (w Wait) Until(ctx context.Context, holds func(context.Context) (bool, error), list ...*Process) error {
	most := cmp.Or(w.Limit, Patience)
	limit, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("it did not happen within %s", most))
	defer cancel()
	for {
		begin := time.Now()
		ok, err := holds(limit)
		took := time.Since(begin)
		if ok && err == nil {
			return nil
		}
		if err := Lives(list...); err != nil {
			return fmt.Errorf("waiting for %s: %w", w.For, err)
		}
		if err = errors.Join(err, context.Cause(limit)); err != nil {
			return fmt.Errorf("waiting for %s: %w%s%s", w.For, err, w.why(), tails(list))
		}
		select {
		case <-limit.Done():
		case <-time.After(max(cmp.Or(w.Pause, pause), 3*took)):
		}
	}
}

func (w Wait) why() string {
	if w.Why == nil {
		return ""
	}
	return ": " + w.Why()
}

// Until is Wait.Until with the usual limit.
func Until(ctx context.Context, what string, holds func(context.Context) (bool, error), list ...*Process) error {
	return Wait{For: what}.Until(ctx, holds, list...)
}

// Lives is an error if one of the processes has ended, with its last lines.
func Lives(list ...*Process) error {
	for _, p := range list {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended by itself: %v\n%s", p.Name(), p.cmd.ProcessState, p.Tail())
		default:
		}
	}
	return nil
}
