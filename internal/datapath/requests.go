// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"time"

	"github.com/podwall/podwall/internal/netpol/cut"
)

// requests are the scopes that wait for a scan. The type reads neither clock nor kernel.
type requests map[cut.Payer]*request

// request is one payer's scope to scan now, and its scope to scan again later.
type request struct {
	now, later *cut.Scope
	after      time.Time // when later is due
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

// again requests another scan of a scope at the given time, or earlier if a second scan is due earlier.
func (r requests) again(p cut.Payer, s *cut.Scope, after time.Time) {
	q := r.of(p)
	if q.later == nil {
		q.after = after
	}
	q.later = q.later.With(s)
}

// turn is the content of one scan.
type turn struct {
	scopes cut.Scopes
	paying []cut.Payer
}

// pick takes the content of the next scan, or returns when the next one is due; the zero time means never.
// Payers in debt wait. But if the scan dumps the whole table anyway, it serves all payers, and only those
// without debt pay. A payer in debt never makes a scan longer.
func (r requests) pick(a *accounts, entries uint32, now time.Time) (t turn, until time.Time) {
	t.scopes = cut.Scopes{}
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
	if s = q.now; s == nil {
		s, q.later = q.later, nil
	}
	if q.now = nil; q.later == nil {
		delete(r, p)
	}
	return s
}
