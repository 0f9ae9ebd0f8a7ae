// SPDX-License-Identifier: Apache-2.0

//go:build linux

package probe

import (
	"context"
	"fmt"
	"time"
)

// Outcome is what became of a batch.
type Outcome struct {
	// Arrived counts the probes that were seen at some endpoint.
	Arrived int
	// Dropped is what the caller's counters said at the end.
	Dropped uint64
	// Missing are the numbers that did not arrive, in the order given. The
	// drops account for them when Exact is true.
	Missing []uint32
	// Exact is true when arrivals and drops are together as many as were sent.
	// Otherwise something was lost without a trace, or the counters count
	// other traffic too, and Missing proves nothing.
	Exact bool
}

// Collect waits until every probe has arrived, or is accounted for by a drop and has not
// come within Settle after that, or until the deadline. The counters may have counted
// packets of others. Dropped returns how far the drop counters have moved
// since before the probes were sent; nil means that no drop is expected. The
// deadline passing is no error: the outcome is then not exact.
func (p *Prober) Collect(ctx context.Context, ids []uint32, dropped func() (uint64, error),
	deadline time.Time) (Outcome, error) {
	limit, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	out, read, settled := Outcome{Missing: ids}, true, time.Time{}
	for {
		news := p.watch()
		ended := limit.Err() != nil // before the last look, not after
		out.Missing = p.missing(out.Missing)
		out.Arrived = len(ids) - len(out.Missing)
		if dropped != nil && (read || ended || len(out.Missing) == 0) {
			n, err := dropped()
			if err != nil {
				return out, fmt.Errorf("reading drop counters: %w", err)
			}
			out.Dropped = n
		}
		total := uint64(out.Arrived) + out.Dropped
		out.Exact = total == uint64(len(ids))
		switch {
		case len(out.Missing) == 0 || ended || !settled.IsZero() && time.Now().After(settled):
			return out, ctx.Err()
		case total < uint64(len(ids)):
		case p.Settle == 0:
			return out, ctx.Err()
		case settled.IsZero():
			settled = time.Now().Add(p.Settle)
		}
		read = wait(limit, news, dropped != nil)
	}
}

// quiet is how long nothing must have arrived before the counters are read
// again: they move without telling, and reading them costs.
const quiet = 2 * time.Millisecond

// wait returns at the next news, or, with counters, when it is time to read
// them.
func wait(ctx context.Context, news <-chan struct{}, counters bool) (read bool) {
	var tick <-chan time.Time
	if counters {
		timer := time.NewTimer(quiet)
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-news:
		return false
	case <-tick:
		return true
	case <-ctx.Done():
		return true
	}
}

// WaitReplies waits until every probe has been answered, or until the
// deadline, and returns the numbers without an answer.
func (p *Prober) WaitReplies(ctx context.Context, ids []uint32, deadline time.Time) []uint32 {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for {
		news := p.watch()
		ended := ctx.Err() != nil
		missing := p.unanswered(ids)
		if len(missing) == 0 || ended {
			return missing
		}
		wait(ctx, news, false)
	}
}

// watch returns a channel that is closed at the next arrival or reply.
func (p *Prober) watch() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = make(chan struct{})
	}
	return p.waiting
}

func (p *Prober) missing(ids []uint32) []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []uint32
	for _, id := range ids {
		if len(p.arrivals[id]) == 0 {
			missing = append(missing, id)
		}
	}
	return missing
}

func (p *Prober) unanswered(ids []uint32) []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []uint32
	for _, id := range ids {
		if len(p.replies[id]) == 0 {
			missing = append(missing, id)
		}
	}
	return missing
}
