// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"maps"
	"net/netip"
)

// Payer is the account that pays for a scan of the connection table. The zero value is the node,
// for scans that no tenant caused.
type Payer struct {
	Tenant string // a namespace
	// Members is true for scans that are needed because other tenants' pods left the sets of a
	// tenant's rules. They have a separate account, so that other tenants cannot use up the budget
	// for the tenant's own changes.
	Members bool
}

// Scope says which connections are scanned. The zero value is none.
type Scope struct {
	Whole   bool                  // all connections
	Touched map[netip.Addr]bool   // connections of these addresses
	Left    map[netip.Addr]string // addresses without a pod now, all of whose connections must end; the former pod
	Round   int                   // how often it was scanned
}

// NewScope returns an empty scope.
func NewScope() *Scope {
	return &Scope{Touched: map[netip.Addr]bool{}, Left: map[netip.Addr]string{}}
}

// With returns the union of two scopes. Either may be nil.
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

// Scopes are the pending scans, by payer.
type Scopes map[Payer]*Scope

// Of returns the payer's scope, and creates it if there is none.
func (s Scopes) Of(p Payer) *Scope {
	if s[p] == nil {
		s[p] = NewScope()
	}
	return s[p]
}

// All returns the union of all scopes.
func (s Scopes) All() *Scope {
	both := NewScope()
	for _, one := range s {
		both = both.With(one)
	}
	return both
}
