// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"maps"
	"net/netip"
	"time"
)

// scope says which connections are looked at.
type scope struct {
	whole   bool                  // all of them
	touched map[netip.Addr]bool   // those of these addresses
	left    map[netip.Addr]string // of these, which have no pod any more, all must end; whose they were
	round   int
}

func newScope() *scope {
	return &scope{touched: map[netip.Addr]bool{}, left: map[netip.Addr]string{}}
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

// scopes are what has to be looked at, by who pays for it.
type scopes map[payer]*scope

func (s scopes) of(p payer) *scope {
	if s[p] == nil {
		s[p] = newScope()
	}
	return s[p]
}

// all returns one scope that is all of them.
func (s scopes) all() *scope {
	both := newScope()
	for _, one := range s {
		both = both.with(one)
	}
	return both
}

// requests are the scopes that wait to be looked at. It reads no clock and asks
// no kernel.
type requests map[payer]*request

// request is one payer's: what is to be looked at now, and what once more.
type request struct {
	now, later *scope
	after      time.Time // when later is due
}

func (r requests) of(p payer) *request {
	if r[p] == nil {
		r[p] = &request{}
	}
	return r[p]
}

// add has a scope looked at as soon as the payer can pay for it.
func (r requests) add(p payer, s *scope) {
	q := r.of(p)
	q.now = q.now.with(s)
}

// again has a scope looked at once more, at the given time or, if a second look
// is due before, then.
func (r requests) again(p payer, s *scope, after time.Time) {
	q := r.of(p)
	if q.later == nil {
		q.after = after
	}
	q.later = q.later.with(s)
}

// turn is what one scan looks at.
type turn struct {
	scopes scopes
	paying []payer
}

// pick takes what is looked at next, or says until when there is nothing; the
// zero time is for ever. Who is in debt waits. But where the whole table is
// handed over anyway, it is looked at for everybody, and only those who are not
// in debt pay. Nobody's scan becomes a longer one because of somebody in debt.
func (r requests) pick(a *accounts, entries uint32, now time.Time) (t turn, until time.Time) {
	t.scopes = scopes{}
	var owing []payer
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
	if len(t.paying) > 0 && t.scopes.all().everything(entries) {
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
func (r requests) take(p payer, now time.Time) (s *scope) {
	q := r[p]
	if s = q.now; s == nil {
		s, q.later = q.later, nil
	}
	if q.now = nil; q.later == nil {
		delete(r, p)
	}
	return s
}
