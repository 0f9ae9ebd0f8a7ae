// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podwall/podwall/internal/conntrack"
	"github.com/podwall/podwall/internal/cut"
	"github.com/podwall/podwall/internal/filter"
)

// The audit looks at the connections that exist, beside the loop: a large table
// takes the kernel longer than the loop may be kept waiting. It changes nothing
// and hands over what must end to the next Apply, which asks once more.
type audit struct {
	conn *conntrack.Conn // of the goroutine that runs it
	log  *slog.Logger
	wake func()
	due  chan struct{} // holds at most one wake-up of the goroutine

	mu      sync.Mutex // guards everything below
	program *filter.Program
	node    []netip.Addr
	groups  cut.Groups
	now     *scope // what has to be looked at
	later   *scope // and what once more, at the time after
	after   time.Time
	found   []cut.Cut
	looked  Looked
	failing bool
}

// Looked says what looking at the connection table took.
type Looked struct {
	Times    int
	Entries  int
	Duration time.Duration
	Err      error // of the last time
}

// scope says which connections are looked at.
type scope struct {
	whole   bool                // all of them
	touched map[netip.Addr]bool // those of these addresses
	left    map[netip.Addr]bool // of these, which have no pod any more, all must end
	round   int
}

const (
	// secondLook is the time until the second look: a packet that was under way at the
	// first may have made an entry since.
	secondLook = time.Second
	// rounds bounds the looks after one change. There is no third, unless the
	// second found something.
	rounds = 5
	// The kernel is asked for the entries of up to filtered addresses, in a table of
	// more than filteredAbove times the square of their number. For each address it
	// walks through the whole table twice, empty places included (10 ms a walk);
	// handing over all takes one walk, and 2.6 µs an entry. Beside 200,000 entries an
	// address took 0.11 s and all entries 0.54 s, beside 100 entries 21 and 10 ms.
	filteredAbove = 1 << 13
	filtered      = 4
	// share is the part of the time that looking may take in the long run, and
	// credit how much of it may be taken at once: a change is looked at without
	// delay, but a busy cluster beside a huge table does not cost a core.
	share  = 0.2
	credit = 2 * time.Second
	// handed is how many connections are handed over at once, and unheard how many
	// are kept before somebody takes them: the next look finds the rest.
	handed, unheard = 512, 1 << 17
)

func newScope() *scope {
	return &scope{touched: map[netip.Addr]bool{}, left: map[netip.Addr]bool{}}
}

// with returns a scope that is both.
func (s *scope) with(o *scope) *scope {
	both := newScope()
	both.round = o.round
	if s != nil {
		both.round = min(both.round, s.round)
	}
	for _, s := range []*scope{s, o} {
		if s != nil {
			both.whole = both.whole || s.whole
			maps.Copy(both.touched, s.touched)
			maps.Copy(both.left, s.left)
		}
	}
	return both
}

// learn tells by what is judged from now on.
func (a *audit) learn(p *filter.Program, node []netip.Addr, groups cut.Groups) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.program, a.node, a.groups = p, node, groups
}

// look has the scope looked at.
func (a *audit) look(s *scope) {
	a.mu.Lock()
	a.now = a.now.with(s)
	a.mu.Unlock()
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// take returns up to n connections that must end, and what it took to find them.
func (a *audit) take(n int) ([]cut.Cut, Looked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n = min(n, len(a.found))
	list := slices.Clone(a.found[:n])
	a.found = append(a.found[:0], a.found[n:]...)
	l := a.looked
	a.looked = Looked{Err: l.Err}
	return list, l
}

// giveBack returns what was taken and could not be cut.
func (a *audit) giveBack(list []cut.Cut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.found = append(a.found, list...)
}

// run looks until ctx ends.
func (a *audit) run(ctx context.Context) {
	b := budget{share: share, left: credit, at: time.Now()}
	for ctx.Err() == nil {
		s, j, until := a.next(time.Now())
		if s == nil {
			a.idle(ctx, until)
			continue
		}
		start := time.Now()
		a.inspect(s, j)
		select {
		case <-ctx.Done():
		case <-time.After(b.spend(time.Since(start), time.Now())):
		}
	}
}

// budget says how long to wait after something that took its time.
type budget struct {
	share float64 // of the time, in the long run
	left  time.Duration
	at    time.Time // when that was so
}

func (b *budget) spend(took time.Duration, now time.Time) (wait time.Duration) {
	b.left = min(credit, b.left+time.Duration(b.share*float64(now.Sub(b.at)))) - took
	b.at = now
	return time.Duration(float64(max(0, -b.left)) / b.share)
}

// idle waits until there is something to do.
func (a *audit) idle(ctx context.Context, until time.Time) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		alarm = time.After(time.Until(until))
	}
	select {
	case <-ctx.Done():
	case <-a.due:
	case <-alarm:
	}
}

// next returns what is to be looked at now and who judges it, or until when
// there is nothing; the zero time is for ever.
func (a *audit) next(now time.Time) (*scope, *cut.Judge, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.now
	switch {
	case s != nil:
		a.now = nil
	case a.later == nil:
		return nil, nil, time.Time{}
	case now.Before(a.after):
		return nil, nil, a.after
	default:
		s, a.later = a.later, nil
	}
	for _, pod := range a.program.Pods {
		delete(s.left, pod.Addr) // it has a pod again, whose connections are its own
	}
	var left []netip.Addr
	for addr := range s.left {
		left = append(left, addr)
	}
	return s, cut.NewJudge(a.program, a.node, left).WithGroups(a.groups), time.Time{}
}

// inspect dumps, judges and hands over.
func (a *audit) inspect(s *scope, j *cut.Judge) {
	start, entries, found := time.Now(), 0, 0
	var batch []cut.Cut
	err := s.dump(a.conn, func(e *cut.Entry) {
		entries++
		if c, denied := j.Judge(e); denied {
			batch, found = append(batch, c), found+1
			if len(batch) == handed {
				a.hand(batch)
				batch = nil
			}
		}
	})
	a.hand(batch)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looked.Times, a.looked.Entries, a.looked.Err = a.looked.Times+1, a.looked.Entries+entries, err
	a.looked.Duration += time.Since(start)
	if (err != nil) != a.failing {
		a.wake() // so that the problem comes, or goes
	}
	a.failing = err != nil
	if s.round++; err != nil || s.round == 1 || found > 0 && s.round < rounds {
		if a.later == nil {
			a.after = time.Now().Add(secondLook)
		}
		a.later = a.later.with(s)
	}
	if err != nil {
		a.log.Warn("looking at the connection table failed, trying again", "err", err)
	}
}

func (a *audit) hand(batch []cut.Cut) {
	if len(batch) == 0 {
		return
	}
	a.mu.Lock()
	if len(a.found) < unheard {
		a.found = append(a.found, batch...)
	}
	a.mu.Unlock()
	a.wake()
}

// dump asks for as little as it can.
func (s *scope) dump(c *conntrack.Conn, take func(*cut.Entry)) error {
	entries, _, err := c.Count()
	if err != nil || entries == 0 {
		return err
	}
	addrs := slices.AppendSeq(slices.Collect(maps.Keys(s.touched)), maps.Keys(s.left))
	n := uint32(min(len(addrs), filtered))
	if s.whole || entries <= filteredAbove*n*n || len(addrs) > filtered {
		return c.Dump(s.family(addrs), take)
	}
	for _, a := range addrs {
		if err := c.DumpAddress(a, take); err != nil {
			return err
		}
	}
	return nil
}

// family returns the one family of the scope, or 0.
func (s *scope) family(addrs []netip.Addr) filter.Family {
	if s.whole || len(addrs) == 0 {
		return 0
	}
	f := filter.FamilyOf(addrs[0])
	for _, a := range addrs {
		if filter.FamilyOf(a) != f {
			return 0
		}
	}
	return f
}
