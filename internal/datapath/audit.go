// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/wake"
)

// The audit looks at the connections that exist, beside the loop: a large table
// takes the kernel longer than the loop may be kept waiting. It changes nothing
// and hands over what must end to the next Cut or Apply, which asks once more. Each
// tenant pays for the looks that its changes need (accounts).
type audit struct {
	conn *conntrack.Conn // of the goroutine that runs it
	log  *slog.Logger
	wake func()      // asks for an Apply, which says that scans fail or not any more
	deny func()      // says that connections were found that must end
	due  wake.Signal // holds at most one wake-up of the goroutine
	// accounts and total belong to that goroutine.
	accounts accounts
	total    budget

	mu       sync.Mutex // guards everything below
	basis    decide.Basis
	requests requests
	found    backlog
	looked   Looked
	failing  bool
}

// Looked says what looking at the connection table took.
type Looked struct {
	Times    int
	Entries  int
	Duration time.Duration
	Err      error // of the last time
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
	// totalShare is the part of the time that looking may take in the long run for
	// all payers together. It makes nobody wait longer than a look takes, and those
	// who come meanwhile are served by one look.
	totalShare = 0.5
	// handed is how many connections are handed over at once, and unheard how many
	// are kept before somebody takes them: the next look finds the rest.
	handed, unheard = 512, 1 << 17
)

func (a *audit) init(log *slog.Logger, awake, deny func()) {
	a.log, a.wake, a.deny, a.due = log, awake, deny, wake.New()
	a.accounts, a.total = newAccounts(), newBudget(totalShare, time.Now())
	a.requests, a.found.limit = requests{}, unheard
}

// learn tells by what is judged from now on.
func (a *audit) learn(b decide.Basis) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.basis = b
}

// look has the scopes looked at.
func (a *audit) look(list cut.Scopes) {
	if len(list) == 0 {
		return
	}
	a.mu.Lock()
	for p, s := range list {
		a.requests.add(p, s)
	}
	a.mu.Unlock()
	a.due.Set()
}

// take returns up to n connections that must end, and what it took to find them.
func (a *audit) take(n int) ([]cut.Cut, Looked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.looked
	a.looked = Looked{Err: l.Err}
	return a.found.take(n), l
}

// giveBack returns what was taken and could not be cut.
func (a *audit) giveBack(list []cut.Cut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.found.add(list)
}

// run looks until ctx ends.
func (a *audit) run(ctx context.Context) {
	for ctx.Err() == nil {
		t, j, until := a.next(time.Now())
		if len(t.scopes) == 0 {
			a.idle(ctx, until)
			continue
		}
		start := time.Now()
		a.inspect(t, j)
		took, now := time.Since(start), time.Now()
		a.accounts.charge(t.paying, took, now)
		select {
		case <-ctx.Done():
		case <-time.After(a.total.spend(took, now)):
		}
	}
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
func (a *audit) next(now time.Time) (turn, *cut.Judge, time.Time) {
	entries, _, err := a.conn.Count()
	if err != nil {
		entries = math.MaxUint32 // the look fails, or takes longer
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t, until := a.requests.pick(&a.accounts, entries, now)
	if len(t.scopes) == 0 {
		return t, nil, until
	}
	var left []netip.Addr
	for _, s := range t.scopes {
		for _, pod := range a.basis.Program.Pods {
			delete(s.Left, pod.Addr) // it has a pod again, whose connections are its own
		}
		left = slices.AppendSeq(left, maps.Keys(s.Left))
	}
	return t, cut.NewJudge(a.basis.Program, a.basis.Node, left).WithGroups(a.basis.Groups), time.Time{}
}

// inspect dumps, judges and hands over.
func (a *audit) inspect(t turn, j *cut.Judge) {
	start, entries, found, all := time.Now(), 0, map[string]int{}, t.scopes.All()
	var batch []cut.Cut
	err := dump(a.conn, all, func(e *inet.Connection) {
		entries++
		c, denied := j.Judge(e)
		if !denied {
			return
		}
		if former, gone := all.Left[c.Addr]; gone {
			c.Tenant = former
		}
		found[c.Tenant]++
		if batch = append(batch, c); len(batch) == handed {
			a.hand(batch)
			batch = nil
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
	for p, s := range t.scopes {
		some := found[p.Tenant] > 0 || p == cut.Payer{} && len(found) > 0
		if s.Round++; err != nil || s.Round == 1 || some && s.Round < rounds {
			a.requests.again(p, s, time.Now().Add(secondLook))
		}
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
	a.found.add(batch)
	a.mu.Unlock()
	a.deny()
}

// dump asks for as little as it can.
func dump(c *conntrack.Conn, s *cut.Scope, take func(*inet.Connection)) error {
	entries, _, err := c.Count()
	if err != nil || entries == 0 {
		return err
	}
	addrs := addressesIn(s)
	if everything(s, entries) {
		return c.Dump(familyOf(s, addrs), take)
	}
	for _, a := range addrs {
		if err := c.DumpAddress(a, take); err != nil {
			return err
		}
	}
	return nil
}

// everything reports whether all entries of the table are handed over.
func everything(s *cut.Scope, entries uint32) bool {
	n := uint32(min(len(s.Touched)+len(s.Left), filtered+1))
	return s.Whole || entries <= filteredAbove*n*n || n > filtered
}

func addressesIn(s *cut.Scope) []netip.Addr {
	return slices.AppendSeq(slices.Collect(maps.Keys(s.Touched)), maps.Keys(s.Left))
}

// familyOf returns the one family of the scope, or 0.
func familyOf(s *cut.Scope, addrs []netip.Addr) inet.Family {
	if s.Whole || len(addrs) == 0 {
		return 0
	}
	f := inet.FamilyOf(addrs[0])
	for _, a := range addrs {
		if inet.FamilyOf(a) != f {
			return 0
		}
	}
	return f
}
