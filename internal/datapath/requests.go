// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"iter"
	"time"

	"github.com/podwall/podwall/internal/netpol/cut"
)

// requests are the scopes that wait for a scan. The type reads neither clock nor kernel.
type requests map[cut.Payer]*request

// request is one payer's scope to scan now, and its scope to scan again later.
type request struct {
	now, later *cut.Scope
	after      time.Time // when later is due
	ripe       time.Time // from when on a scan for another request serves it
}

func (r requests) of(p cut.Payer) *request {
	if r[p] == nil {
		r[p] = &request{}
	}
	return r[p]
}

// add requests a scan of a scope as soon as the payer has credit.
func (r requests) add(p cut.Payer, s *cut.Scope) {
	q := r.of(p)
	q.now = q.now.With(s)
}

// again requests a second scan of a scope that was scanned now, or earlier if one is due earlier.
func (r requests) again(p cut.Payer, s *cut.Scope, now time.Time) {
	q := r.of(p)
	if q.later == nil {
		q.after = now.Add(secondLook)
	}
	q.later, q.ripe = q.later.With(s), now.Add(inFlight)
}

// turn is the content of one scan. along are second scans that need no scan of their own.
type turn struct {
	scopes, along cut.Scopes
	paying        []cut.Payer
}

// each returns all scopes; a payer may have two.
func (t turn) each() iter.Seq2[cut.Payer, *cut.Scope] {
	return func(yield func(cut.Payer, *cut.Scope) bool) {
		for _, list := range []cut.Scopes{t.scopes, t.along} {
			for p, s := range list {
				if !yield(p, s) {
					return
				}
			}
		}
	}
}

// all returns the union of all scopes.
func (t turn) all() *cut.Scope { return t.scopes.All().With(t.along.All()) }

// pick takes the content of the next scan, or returns when the next one is due; the zero time means never.
// Payers in debt wait. But if the scan dumps the whole table anyway, it serves all payers, and only those
// without debt pay. A payer in debt never makes a scan longer. Second scans go along in the same way.
func (r requests) pick(a *accounts, entries uint32, now time.Time) (t turn, until time.Time) {
	t.scopes, t.along = cut.Scopes{}, cut.Scopes{}
	var owing []cut.Payer
	for p, q := range r {
		ready := q.due(now)
		if !ready.After(now) {
			wait := a.wait(p, now)
			if ready = now.Add(wait); wait == 0 {
				t.paying = append(t.paying, p)
				continue
			}
			owing = append(owing, p)
		}
		if until.IsZero() || ready.Before(until) {
			until = ready
		}
	}
	for _, p := range t.paying {
		t.scopes[p] = r.take(p)
	}
	if len(t.paying) > 0 && everything(t.scopes.All(), entries) {
		for _, p := range owing {
			t.scopes[p] = r.take(p)
		}
		for p, q := range r {
			if q.later != nil && !q.ripe.After(now) {
				t.along[p] = r.takeLater(p)
			}
		}
	}
	return t, until
}

// due returns when the request can be served at the earliest.
func (q *request) due(now time.Time) time.Time {
	if q.now != nil {
		return now
	}
	return q.after
}

// take takes the scope that is due for a payer.
func (r requests) take(p cut.Payer) (s *cut.Scope) {
	q := r[p]
	if q.now == nil {
		return r.takeLater(p)
	}
	if s, q.now = q.now, nil; q.later == nil {
		delete(r, p)
	}
	return s
}

func (r requests) takeLater(p cut.Payer) (s *cut.Scope) {
	q := r[p]
	if s, q.later = q.later, nil; q.now == nil {
		delete(r, p)
	}
	return s
}
