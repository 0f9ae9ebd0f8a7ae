// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package flows records the flows that this node's policies deny, and answers root about them. The
// recorder receives denied packets from the kernel; the server answers at an abstract Unix socket of
// the node's network namespace, which has no port and asks each client for its user; Ask is the
// client.
//
// It decides nothing: what a record says comes from netpol/denied. Without an NFLOG group
// nothing is received; the server still answers, and says so.
package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nflog"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

const (
	// ringSize is how many records are kept.
	ringSize = 4096
	// flushEach is the time that packets are gathered before they are records.
	flushEach = 500 * time.Millisecond
	// retryEach is the pause after a failure to receive packets.
	retryEach = 5 * time.Second
	// followerRoom is how many records wait for who follows; more are missed.
	followerRoom = 1024
)

// Recorder makes records of the packets that policies deny on this node.
type Recorder struct {
	Node  string
	Group uint16 // of NFLOG, as the rules have it
	// Owners finds out who has an address.
	Owners func([]netip.Addr) map[netip.Addr]cluster.Owner
	// Services are those that this agent serves. May be nil.
	Services denied.Services
	// Failed is called when packets cannot be received, and with nil when they can again.
	Failed func(error)
	// Show receives each record that is new, and again while it goes on. May be nil.
	Show func(denied.Record)
	// Count receives each record with the packets since it was last counted, Lost how many packets
	// more found no room.
	Count func(denied.Record)
	Lost  func(packets uint64)

	view  atomic.Pointer[denied.View]
	began time.Time

	mu        sync.Mutex // guards what follows
	ring      *denied.Ring
	followers map[*follower]bool
	recorded  uint64
	gathered  uint64 // packets that will be in records at the next flush
	failure   error
}

// follower receives records as they are made.
type follower struct {
	records chan denied.Record
	missed  uint64
}

// Begin makes the recorder ready for everything else.
func (r *Recorder) Begin() *Recorder {
	r.ring, r.followers, r.began = denied.NewRing(ringSize), map[*follower]bool{}, time.Now()
	return r
}

// Enforce is called after each commit, with what the kernel enforces from then on.
func (r *Recorder) Enforce(v *denied.View) { r.view.Store(v) }

// Run receives packets until ctx ends. A failure is tried again.
func (r *Recorder) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.receive(ctx)
		if ctx.Err() != nil {
			return
		}
		r.fail(err)
		select {
		case <-ctx.Done():
		case <-time.After(retryEach):
		}
	}
}

// fail notes why nothing is recorded; nil if it is.
func (r *Recorder) fail(err error) {
	r.mu.Lock()
	was := r.failure
	r.failure = err
	r.mu.Unlock()
	if (err == nil) != (was == nil) || err != nil && err.Error() != was.Error() {
		r.Failed(err)
	}
}

// receive makes records until ctx ends or something fails.
func (r *Recorder) receive(ctx context.Context) error {
	l, err := nflog.Listen(r.Group, ruleset.DeniedBytes)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // Receive reports it
	defer func() {
		if stop() {
			_ = l.Close() // nothing is written
		}
	}()
	r.fail(nil)
	var g denied.Gatherer
	var flush time.Time // zero if nothing is gathered
	var lost uint64
	for {
		packets, err := l.Receive(flush)
		now := time.Now()
		for _, p := range packets {
			if before := g.Skipped(); r.add(&g, p, now) && g.Skipped() == before {
				r.note(1)
			}
		}
		if !g.Empty() && flush.IsZero() {
			flush = now.Add(flushEach)
		}
		if !flush.IsZero() && !now.Before(flush) || err != nil {
			r.keep(g.Flush(r.Node, denied.Names{Owners: r.Owners, Services: r.Services}))
			flush = time.Time{}
		}
		if more := g.Skipped() + l.Lost(); more > lost {
			r.Lost(more - lost)
			lost = more
		}
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		}
	}
}

// deniedBy returns which policies a packet met, by its prefix, or false if no rule of ours has it. It
// runs for each packet.
func deniedBy(prefix string) (denied.By, bool) {
	switch prefix {
	case ruleset.DeniedIngress:
		return denied.By{Direction: program.Ingress}, true
	case ruleset.DeniedEgress:
		return denied.By{Direction: program.Egress}, true
	case ruleset.AuditIngress:
		return denied.By{Direction: program.Ingress, Audit: true}, true
	case ruleset.AuditEgress:
		return denied.By{Direction: program.Egress, Audit: true}, true
	}
	return denied.By{}, false
}

// add gathers one packet, and reports whether it did or found no room for it. What has another prefix is not
// ours: another program uses the group too.
func (r *Recorder) add(g *denied.Gatherer, p nflog.Packet, now time.Time) bool {
	by, ours := deniedBy(p.Prefix)
	view := r.view.Load()
	if !ours || view == nil {
		return false
	}
	f, ok := denied.Parse(p.Payload)
	if ok {
		g.Add(view, by, f.SentTo(p.Original), now)
	}
	return ok
}

// note counts packets that are gathered.
func (r *Recorder) note(packets uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gathered += packets
}

// known is how many packets have a record, or will have one at the next flush.
func (r *Recorder) known() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recorded + r.gathered
}

// keep stores records and shows them.
func (r *Recorder) keep(list []denied.Record) {
	r.mu.Lock()
	r.gathered = 0 // first, so that a packet may be missing for a moment, and is never counted twice
	r.mu.Unlock()
	for _, one := range list {
		r.Count(one)
		if now, show := r.put(one); show && r.Show != nil {
			r.Show(now)
		}
	}
}

func (r *Recorder) put(one denied.Record) (now denied.Record, show bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recorded += one.Count
	now, show = r.ring.Add(one)
	if !show {
		return now, false
	}
	for f := range r.followers {
		select {
		case f.records <- now:
		default:
			f.missed++
		}
	}
	return now, true
}

// since returns the records that were last seen after a time, and a summary. If follow is true, the
// records from then on are sent to the follower until leave is called.
func (r *Recorder) since(t time.Time, follow bool) (list []denied.Record, s denied.Summary, f *follower) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s = denied.Summary{Node: r.Node, Recording: r.failure == nil, Since: r.began, Recorded: r.recorded}
	s.Forgotten, s.ForgottenTo = r.ring.Dropped()
	if r.failure != nil {
		s.Why = r.failure.Error()
	}
	if follow {
		f = &follower{records: make(chan denied.Record, followerRoom)}
		r.followers[f] = true
	}
	return r.ring.Since(t), s, f
}

func (r *Recorder) leave(f *follower) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.followers, f)
}

// missed takes how many records a follower did not get.
func (r *Recorder) missed(f *follower) (n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, f.missed = f.missed, 0
	return n
}

// Problem is what an operator reads when packets cannot be received.
func Problem(err error) (text, cure string) {
	text = fmt.Sprintf("denied flows are not recorded: %v", err)
	cure = "it is tried again; policies are enforced all the same"
	if errors.Is(err, nflog.ErrTaken) {
		cure = "give the agent a group that no other program of the node uses (ulogd for example), with " +
			"--denied-flows-group, and the capability NET_ADMIN; policies are enforced all the same"
	}
	return text, cure
}
