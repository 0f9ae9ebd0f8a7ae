// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"cmp"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/observe"
)

// Soft limits: up to here it was measured, and nothing ends there. docs/limits.md
// has the times. The bounds of the others are those of who ends something.
const (
	maxElements = 1_000_000
	maxPrefixes = 60_000
	maxRules    = 100_000
)

// counts is what fills up. The last pass and the last verification each know a
// part.
type counts struct {
	rules, elements, prefixes, refused int
	longest, largest, widest           string // chain, set, and set of prefixes
	connections                        observe.Connections
}

// take counts what the kernel holds after a pass.
func (c *counts) take(t *nft.Table, refused int) {
	*c = counts{refused: refused, connections: c.connections}
	most := 0
	for _, chain := range t.Chains {
		n := len(chain.Rules)
		c.rules += n
		if n > most {
			most, c.longest = n, chain.Name
		}
	}
	most = 0
	for _, s := range t.Sets {
		n := s.Len()
		c.elements += n
		if n > most {
			most, c.largest = n, describe(s)
		}
		if s.Interval && n > c.prefixes {
			c.prefixes, c.widest = n, describe(s)
		}
	}
}

// describe names a set with what its comment says of its origin.
func describe(s *nft.Set) string {
	if s.Comment == "" {
		return s.Name
	}
	return s.Name + " (" + s.Comment + ")"
}

// uses sets the counts against the limits, in the order of their names.
func (c *counts) uses() []observe.Use {
	return []observe.Use{
		{Limit: observe.LimitConnections, Object: "entries of the connection table", Used: c.connections.Entries,
			Max: c.connections.Limit},
		{Limit: observe.LimitElements, Object: "elements of all sets, most of them in " + cmp.Or(c.largest, "none"),
			Used: c.elements, Max: maxElements},
		{Limit: observe.LimitPrefixes, Object: "prefixes in set " + cmp.Or(c.widest, "none"), Used: c.prefixes,
			Max: maxPrefixes},
		{Limit: observe.LimitRefused, Object: "connections that were cut and are refused a revival", Used: c.refused,
			Max: decide.MaxRefused},
		{Limit: observe.LimitRules, Object: "rules of all chains, most of them in " + cmp.Or(c.longest, "none"),
			Used: c.rules, Max: maxRules},
	}
}

// compare tells the observer how full everything is.
func (l *Loop) compare() {
	for _, u := range l.counts.uses() {
		l.Observer.SetUse(u)
		subject := u.Subject()
		p, full := u.Problem(l.full[subject])
		switch {
		case full:
			if !l.full[subject] {
				l.Log.Warn("close to a limit", "subject", subject, "detail", p.Text, "cure", p.Cure)
			}
			l.Observer.SetProblem(p)
		case l.full[subject]:
			observe.LogResolved(l.Log, subject)
			l.Observer.ClearProblem(subject)
		}
		if l.full == nil {
			l.full = map[string]bool{}
		}
		l.full[subject] = full
	}
}

// connections asks how full the connection table is. After an error the last
// answer stays.
func (l *Loop) connections() {
	entries, limit, err := l.Kernel.Connections()
	if err != nil {
		l.Log.Warn("reading conntrack usage failed", "err", err)
		return
	}
	if entries == 0 && limit == 0 {
		return // it cannot be read, and a problem says so
	}
	l.counts.connections = observe.Connections{Entries: int(entries), Limit: int(limit)}
	l.Observer.SetConnections(l.counts.connections)
}
