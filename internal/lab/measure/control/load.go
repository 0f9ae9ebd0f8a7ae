// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// rate is how many changes a second the load makes.
const rate = 100

// load is a stream of changes of pods of other nodes: each is added, loses the
// label that lets it in, gets it back and is removed, lag turns of four changes
// apart. That is seconds: changes that the agent takes together would show
// nothing in the kernel. At any time pods in every state are there.
type load struct {
	w    *world
	lag  int
	pods []int // their numbers
}

// newLoad makes the pods that are there when the stream begins, and waits until the
// kernel knows the last of them.
func newLoad(ctx context.Context, w *world, lag int) (*load, error) {
	l := &load{w: w, lag: lag}
	last := w.witness.Expect(false, ofEvent(w.fresh+3*lag))
	for i := range 3 * lag {
		role := "client"
		if i/lag == 1 { // they lost the label before the stream began
			role = "none"
		}
		p, _, n := w.remote(role, "none")
		if _, err := w.src.create(ctx, p); err != nil {
			return nil, err
		}
		l.pods = append(l.pods, n)
	}
	_, err := w.await(ctx, last)
	return l, err
}

// step returns the i-th change of the stream.
func (l *load) step(i int) step {
	turn := i / 4
	switch i % 4 {
	case 0:
		p, ip, n := l.w.remote("client", "none")
		l.pods = append(l.pods, n)
		return step{"added", false, []netip.Addr{ip}, l.w.src.create, p}
	case 1:
		return l.label(turn+2*l.lag, "none", true)
	case 2:
		return l.label(turn+l.lag, "client", false)
	}
	n := l.pods[turn]
	return step{"removed", true, []netip.Addr{ofEvent(n)}, l.w.src.remove, client(n, "client", "none")}
}

func (l *load) label(i int, role string, gone bool) step {
	n := l.pods[i]
	return step{"label", gone, []netip.Addr{ofEvent(n)}, l.w.src.update, client(n, role, "none")}
}

// run makes n changes, rate of them a second whatever the answers do, and returns
// the milliseconds of each that the kernel took it over in.
func (l *load) run(ctx context.Context, from, n int) ([]float64, error) {
	times := make([]float64, n)
	g, ctx := errgroup.WithContext(ctx)
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for i := range n {
		select {
		case <-ctx.Done():
			return nil, errors.Join(g.Wait(), context.Cause(ctx))
		case <-tick.C:
		}
		s := l.step(from + i)
		g.Go(func() error {
			took, err := l.w.timed(ctx, s.gone, s.list, func() (time.Time, error) { return s.change(ctx, s.object) })
			times[i] = milliseconds(took)
			return err
		})
	}
	return times, g.Wait()
}

// clear removes the pods that are left after n changes, and one more that the
// kernel shows, so that nothing is under way afterwards.
func (l *load) clear(ctx context.Context, n int) error {
	for _, p := range l.pods[n/4:] {
		if _, err := l.w.src.remove(ctx, client(p, "client", "none")); err != nil {
			return err
		}
	}
	return l.w.turn(ctx, podSteps(l.w, 0), map[string][]float64{})
}
