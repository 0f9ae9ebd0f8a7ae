// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"time"

	"github.com/podwall/podwall/internal/netpol/cut"
)

// requests are the scopes that wait to be looked at. It reads no clock and asks
// no kernel.
type requests map[cut.Payer]*request

// request is one payer's: what is to be looked at now, and what once more.
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

// add has a scope looked at as soon as the payer can pay for it.
func (r requests) add(p cut.Payer, s *cut.Scope) {
	q := r.of(p)
	q.now = q.now.With(s)
}

// again has a scope looked at once more, at the given time or, if a second look
// is due before, then.
func (r requests) again(p cut.Payer, s *cut.Scope, after time.Time) {
	q := r.of(p)
	if q.later == nil {
		q.after = after
	}
	q.later = q.later.With(s)
}

// turn is what one scan looks at.
type turn struct {
	scopes cut.Scopes
	paying []cut.Payer
}

// pick takes what is looked at next, or says until when there is nothing; the
// zero time is for ever. Who is in debt waits. But where the whole table is
// handed over anyway, it is looked at for everybody, and only those who are not
// in debt pay. Nobody's scan becomes a longer one because of somebody in debt.
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
		t.scopes[p] = r.take(p, now)
	}
	if len(t.paying) > 0 && everything(t.scopes.All(), entries) {
		for _, p := range owing {
			t.scopes[p] = r.take(p, now)
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

// take takes what is due of a payer.
func (r requests) take(p cut.Payer, now time.Time) (s *cut.Scope) {
	q := r[p]
	if s = q.now; s == nil {
		s, q.later = q.later, nil
	}
	if q.now = nil; q.later == nil {
		delete(r, p)
	}
	return s
}
