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

// The audit scans existing connections in its own goroutine, because scanning a large table takes longer
// than the loop may be blocked. It changes nothing. It passes denied connections to the next Cut or Apply,
// which judges them again. Each tenant pays for the scans that its changes need (accounts).
type audit struct {
	conn *conntrack.Conn // of the goroutine that runs it
	log  *slog.Logger
	wake func()      // requests an Apply when scans begin or cease to fail
	deny func()      // reports that denied connections were found
	due  wake.Signal // holds at most one wake-up of the goroutine
	// Only that goroutine uses accounts and total.
	accounts accounts
	total    budget

	mu       sync.Mutex // guards everything below
	basis    decide.Basis
	requests requests
	found    backlog
	scans    Scans
	failing  bool
}

// Scans sums up the scans of the connection table since the last report.
type Scans struct {
	Times    int
	Entries  int
	Duration time.Duration
	Err      error // of the last scan
}

const (
	// secondLook is the delay of the second scan: a packet in flight during the first scan may have added
	// an entry. A scan of the whole table for somebody else serves as the second one if it begins at least
	// inFlight after the first.
	secondLook, inFlight = time.Second, 100 * time.Millisecond
	// lull is how long a change is left alone before its first scan. A scan keeps a processor for 10 ms in a
	// kernel without preemption: first those go on who wait for the change, such as the gate, and changes that
	// follow closely share the scan.
	lull = 5 * time.Millisecond
	// rounds bounds the scans after one change. Scans after the second run only if the one before found
	// something.
	rounds = 5
	// A scan requests single addresses only if there are at most filtered of them and the table holds more
	// than filteredAbove entries times the square of their number. For each address the kernel walks the
	// whole table twice, including empty buckets (10 ms per walk). A full dump takes one walk and 2.6 µs
	// per entry. Measured: with 200,000 entries 0.11 s for one address and 0.54 s for all entries; with 100
	// entries 21 ms and 10 ms.
	filteredAbove = 1 << 13
	filtered      = 4
	// totalShare is the share of time that scans for all payers together may take in the long run. A payer
	// waits no longer for it than one scan takes, and one scan serves all payers that request one in the
	// meantime.
	totalShare = 0.5
	// handed is how many connections are passed on at once. unheard is how many are kept until they are
	// taken; the next scan finds the rest.
	handed, unheard = 512, 1 << 17
)

func (a *audit) init(log *slog.Logger, awake, deny func()) {
	a.log, a.wake, a.deny, a.due = log, awake, deny, wake.New()
	a.accounts, a.total = newAccounts(), newBudget(totalShare, time.Now())
	a.requests, a.found.limit = requests{}, unheard
}

// learn sets the basis of later verdicts.
func (a *audit) learn(b decide.Basis) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.basis = b
}

// look requests scans of the scopes; for those in later a search was the first one.
func (a *audit) look(list, later cut.Scopes) {
	if len(list)+len(later) == 0 {
		return
	}
	a.mu.Lock()
	for p, s := range list {
		a.requests.add(p, s)
	}
	for p, s := range later {
		a.requests.again(p, s, time.Now())
	}
	a.mu.Unlock()
	a.due.Set()
}

// take returns up to n denied connections, and the cost of the scans that found them.
func (a *audit) take(n int) ([]cut.Cut, Scans) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.scans
	a.scans = Scans{Err: l.Err}
	return a.found.take(n), l
}

// giveBack queues connections again that were taken and could not be cut.
func (a *audit) giveBack(list []cut.Cut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.found.add(list)
}

// run scans until ctx ends.
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

// idle waits until a request arrives or a scan is due.
func (a *audit) idle(ctx context.Context, until time.Time) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		alarm = time.After(time.Until(until))
	}
	select {
	case <-ctx.Done():
	case <-a.due:
		select {
		case <-ctx.Done():
		case <-time.After(lull):
		}
	case <-alarm:
	}
}

// next returns the scopes to scan now and their judge, or the time of the next scan; the zero time means
// that none is scheduled.
func (a *audit) next(now time.Time) (turn, *cut.Judge, time.Time) {
	entries, _, err := a.conn.Count()
	if err != nil {
		entries = math.MaxUint32 // the scan then fails too, or takes longer
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t, until := a.requests.pick(&a.accounts, entries, now)
	if len(t.scopes) == 0 {
		return t, nil, until
	}
	var left []netip.Addr
	for _, s := range t.each() {
		for _, pod := range a.basis.Program.Pods {
			delete(s.Left, pod.Addr) // the address has a pod again, whose connections must stay
		}
		left = slices.AppendSeq(left, maps.Keys(s.Left))
	}
	return t, cut.NewJudge(a.basis.Program, a.basis.Node, left).WithGroups(a.basis.Groups), time.Time{}
}

// inspect dumps the table, judges the entries and passes the denied ones on.
func (a *audit) inspect(t turn, j *cut.Judge) {
	start, entries, found, all := time.Now(), 0, map[string]int{}, t.all()
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
	a.scans.Times, a.scans.Entries, a.scans.Err = a.scans.Times+1, a.scans.Entries+entries, err
	a.scans.Duration += time.Since(start)
	if (err != nil) != a.failing {
		a.wake() // to add or remove the reported problem
	}
	a.failing = err != nil
	for p, s := range t.each() {
		some := found[p.Tenant] > 0 || p == cut.Payer{} && len(found) > 0
		if s.Round++; err != nil || s.Round == 1 || some && s.Round < rounds {
			a.requests.again(p, s, time.Now())
		}
	}
	if err != nil {
		a.log.Warn("conntrack scan failed, retrying", "err", err)
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

// dump requests as few entries as possible.
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

// everything reports whether the scan dumps the whole table.
func everything(s *cut.Scope, entries uint32) bool {
	n := uint32(min(len(s.Touched)+len(s.Left), filtered+1))
	return s.Whole || entries <= filteredAbove*n*n || n > filtered
}

func addressesIn(s *cut.Scope) []netip.Addr {
	return slices.AppendSeq(slices.Collect(maps.Keys(s.Touched)), maps.Keys(s.Left))
}

// familyOf returns the only family of the scope, or 0 if there are several.
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
