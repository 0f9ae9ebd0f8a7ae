// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"time"

	"github.com/podwall/podwall/internal/netpol/cut"
)

const (
	// share is the share of time that scans for one payer may take in the long run, and credit is how much
	// of it may be taken at once. A single change is scanned without delay; a payer with constant changes
	// waits.
	share  = 0.2
	credit = 2 * time.Second
	// maxAccounts bounds the accounts that are not full. Above it new payers share one account.
	maxAccounts = 1024
)

// accounts compute how long each payer has to wait for its next scan of the connection table. They read no
// clock. Full accounts are not stored. The zero value needs share and credit.
type accounts struct {
	share  float64
	credit time.Duration
	list   map[cut.Payer]budget
}

func newAccounts() accounts {
	return accounts{share: share, credit: credit, list: map[cut.Payer]budget{}}
}

// shared is the account of all payers beyond maxAccounts.
var shared = cut.Payer{Members: true}

// wait returns how long the payer has to wait; 0 if it has no debt.
func (a *accounts) wait(p cut.Payer, now time.Time) time.Duration {
	b := a.of(p, now)
	return b.spend(0, now)
}

// charge splits a cost equally among the payers.
func (a *accounts) charge(list []cut.Payer, cost time.Duration, now time.Time) {
	for _, p := range list {
		if len(a.list) >= maxAccounts {
			a.forget(now)
		}
		b := a.of(p, now)
		b.spend(cost/time.Duration(len(list)), now)
		if _, known := a.list[p]; !known && len(a.list) >= maxAccounts {
			p = shared
		}
		a.list[p] = b
	}
}

// of returns the payer's account. An account that is not stored is full.
func (a *accounts) of(p cut.Payer, now time.Time) budget {
	b, known := a.list[p]
	if !known && len(a.list) >= maxAccounts {
		b, known = a.list[shared]
	}
	if !known {
		b = budget{share: a.share, credit: a.credit, left: a.credit, at: now}
	}
	return b
}

// forget drops the accounts that are full again.
func (a *accounts) forget(now time.Time) {
	for p, b := range a.list {
		if b.spend(0, now); b.left >= b.credit {
			delete(a.list, p)
		}
	}
}

// budget computes how long to wait after work of a known duration.
type budget struct {
	share  float64 // of the time, in the long run
	credit time.Duration
	left   time.Duration
	at     time.Time // when left was computed
}

// newBudget returns a budget with full credit.
func newBudget(share float64, now time.Time) budget {
	return budget{share: share, credit: credit, left: credit, at: now}
}

// spend subtracts the duration of some work and returns how long to wait until the debt is paid.
func (b *budget) spend(took time.Duration, now time.Time) (wait time.Duration) {
	b.left = min(b.credit, b.left+time.Duration(b.share*float64(now.Sub(b.at)))) - took
	b.at = now
	return time.Duration(float64(max(0, -b.left)) / b.share)
}
