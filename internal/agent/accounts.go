// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"maps"
	"slices"
	"time"
)

const (
	// fairShare is the part of the loop's time that a namespace may take in the long
	// run, and fairCredit how much of it at once.
	fairShare  = 0.2
	fairCredit = time.Second
	// allShare is the part that all namespaces may take together in the long run.
	allShare = 0.5
	// maxDebt bounds how long a change can wait, to 10 s for one namespace and to 4 s
	// for each that spends: an administrator may have to get one into the namespace.
	maxDebt = 2 * time.Second
	// unitCost is what a rule or a range costs: compiling it, and in the kernel.
	unitCost = 30 * time.Microsecond
)

// accounts say what each namespace may still spend of the loop's time. All accounts
// that are not full are filled at the same rate, fairShare, or an equal part of
// allShare where there are more of them. So the sum of what is filled, and with it
// what all that spend more than their credit take in the long run, is never more
// than allShare, whether they are in debt or stop just before: who has spent little
// finds the loop free for half of the time, however many others there are.
//
// Since the rate is one, the state is one clock, which runs at that rate, and for
// each namespace the value of the clock at which its account is full.
type accounts struct {
	clock time.Duration
	at    time.Time                // when the clock was read
	full  map[string]time.Duration // absent: the account is full
}

func newAccounts() accounts { return accounts{full: map[string]time.Duration{}} }

// rate is that of the clock while so many accounts are filled.
func rate(accounts int) float64 { return min(fairShare, allShare/float64(accounts)) }

// advance moves the clock to now, and forgets the accounts that are full.
func (a *accounts) advance(now time.Time) {
	elapsed := now.Sub(a.at)
	if elapsed <= 0 { // a pass asks for the time of its begin after its end was charged
		return
	}
	a.at = now
	if len(a.full) == 0 {
		return
	}
	dues := slices.Sorted(maps.Values(a.full))
	for i, due := range dues {
		r := rate(len(dues) - i)
		need := time.Duration(float64(due-a.clock) / r)
		if need > elapsed {
			a.clock += time.Duration(r * float64(elapsed))
			break
		}
		elapsed -= need
		a.clock = due
	}
	maps.DeleteFunc(a.full, func(_ string, due time.Duration) bool { return due <= a.clock })
}

// left returns what a namespace may spend; below zero it waits.
func (a *accounts) left(namespace string, now time.Time) time.Duration {
	a.advance(now)
	full, spent := a.full[namespace]
	if !spent {
		return fairCredit
	}
	return fairCredit - (full - a.clock)
}

// spend takes from what a namespace may spend. The debt is bounded.
func (a *accounts) spend(namespace string, cost time.Duration, now time.Time) {
	left := max(a.left(namespace, now)-cost, -maxDebt)
	if left < fairCredit {
		a.full[namespace] = a.clock + fairCredit - left
	}
}

// until returns how long it takes to fill an account that has so much left up to zero,
// if no namespace spends anything meanwhile.
func (a *accounts) until(left time.Duration) (wait time.Duration) {
	goal, clock := a.clock-left, a.clock
	dues := slices.Sorted(maps.Values(a.full))
	for i, due := range dues {
		if clock >= goal {
			break
		}
		next := min(due, goal)
		wait += time.Duration(float64(next-clock) / rate(len(dues)-i))
		clock = next
	}
	return wait
}
