// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"maps"
	"net/netip"
)

// Payer is who pays for a scan of the connection table. The zero value is the
// node: what no tenant caused.
type Payer struct {
	Tenant string // a namespace
	// Members is true of scans that a tenant's rules need because others' pods went
	// out of their sets. They have an account of their own, so that others cannot
	// use up what the tenant's own changes pay from.
	Members bool
}

// Scope says which connections are scanned. The zero value is none.
type Scope struct {
	Whole   bool                  // all of them
	Touched map[netip.Addr]bool   // those of these addresses
	Left    map[netip.Addr]string // of these, which have no pod any more, all must end; whose they were
	Round   int                   // how often it was scanned
}

// NewScope returns a scope to be filled.
func NewScope() *Scope {
	return &Scope{Touched: map[netip.Addr]bool{}, Left: map[netip.Addr]string{}}
}

// With returns a scope that is both. Either may be nil.
func (s *Scope) With(o *Scope) *Scope {
	both := NewScope()
	both.Round = o.Round
	if s != nil {
		both.Round = min(both.Round, s.Round)
	}
	for _, s := range []*Scope{s, o} {
		if s != nil {
			both.Whole = both.Whole || s.Whole
			maps.Copy(both.Touched, s.Touched)
			maps.Copy(both.Left, s.Left)
		}
	}
	return both
}

// Scopes are what has to be scanned, by who pays for it.
type Scopes map[Payer]*Scope

// Of returns the payer's scope, and makes it if there is none.
func (s Scopes) Of(p Payer) *Scope {
	if s[p] == nil {
		s[p] = NewScope()
	}
	return s[p]
}

// All returns one scope that is all of them.
func (s Scopes) All() *Scope {
	both := NewScope()
	for _, one := range s {
		both = both.With(one)
	}
	return both
}
