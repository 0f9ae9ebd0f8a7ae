// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The other half of a cut: what is kept of connections that were cut, so that the
// end which answered does not revive them. The kernel's sets hold it, and the map
// refused says what they hold.

// refusal is what is known of an element of the sets.
type refusal struct {
	number  uint64    // the order in which they came
	tenant  string    // whose pod it protects; empty if that is not known
	allowed time.Time // since when the connection is allowed again; zero if it is not
	judged  bool      // by what asked says
}

// asked is what refused connections were judged by. It may be a program that was
// never committed.
type asked struct {
	program *program.Program // nil before the first
	node    []netip.Addr
}

// ask judges what is refused, as far as the change concerns it: the rest is as
// allowed or denied as before. It costs up to thousands of rules for each.
func (c *cuts) ask(p *program.Program, others map[netip.Addr]bool, todo *plan) {
	all, differ := true, map[netip.Addr]bool{}
	if c.asked.program != nil && slices.Equal(c.asked.node, todo.node) {
		all, differ = false, cut.Differing(c.policed(c.asked.program), c.policed(p))
	}
	c.asked = asked{p, todo.node}
	now := time.Now()
	for r, known := range c.refused {
		if others[r.Src] || others[r.Dst] {
			todo.remove[r] = true
			continue
		}
		if known.judged && !all && !differ[r.Src] && !differ[r.Dst] {
			continue
		}
		known.judged = true
		switch by, denied := todo.judge.Denied(r.Flow()); {
		case denied:
			known.allowed, known.tenant = time.Time{}, by.Tenant
		case known.allowed.IsZero():
			known.allowed = now
			c.release.Reset(c.lenient)
		}
		c.refused[r] = known
	}
}

const (
	// lenience is for how long a revival is refused after the connection is allowed
	// again. The end that began it should speak first: only then is it the same
	// connection, by its Service and judged as what it is. A TCP end of
	// Linux that has something to say repeats it at least every two minutes.
	lenience = 2 * time.Minute
	// MaxRefused bounds what the sets hold. Beyond it the oldest of those tenants go
	// that have more than a fair share.
	MaxRefused = 1 << 16
	// sweepPeriod is how often the kernel is asked what it has forgotten.
	sweepPeriod = time.Minute
)

// free takes out of the sets what has been allowed again for long enough.
func (c *cuts) free(now time.Time, todo *plan) {
	for r, known := range c.refused {
		if !known.allowed.IsZero() && now.Sub(known.allowed) >= c.lenient {
			todo.remove[r] = true
		}
	}
}

// bound makes room in the sets: the oldest of the tenants with most go, and nobody's
// who has no more than a fair share.
func (c *cuts) bound(todo *plan) {
	excess := len(c.refused) + len(todo.add) - len(todo.remove) - MaxRefused
	if excess <= 0 {
		return
	}
	held := map[string]int{}
	for r, known := range c.refused {
		if !todo.remove[r] {
			held[known.tenant]++
		}
	}
	for _, of := range todo.add {
		held[of]++
	}
	var losers []string
	for of, n := range fairShares(held, MaxRefused) {
		if n < held[of] {
			losers = append(losers, of)
			c.give(of, held[of]-n, todo)
		}
	}
	slices.Sort(losers)
	c.log.Warn("too many connections are cut: the answering ends of the oldest may revive them", "limit", MaxRefused, "count", excess, "namespaces", losers)
}

// give takes the oldest n of a tenant out of the sets, and then, if that is not
// enough, of what comes.
func (c *cuts) give(tenant string, n int, todo *plan) {
	var stay []program.Refused
	for r, known := range c.refused {
		if known.tenant == tenant && !todo.remove[r] {
			stay = append(stay, r)
		}
	}
	slices.SortFunc(stay, func(a, b program.Refused) int { return cmp.Compare(c.refused[a].number, c.refused[b].number) })
	for _, r := range stay[:min(n, len(stay))] {
		todo.remove[r] = true
	}
	n -= len(stay)
	for r, of := range todo.add {
		if n > 0 && of == tenant {
			delete(todo.add, r)
			n--
		}
	}
}

// settle notes what the sets hold after the commit.
func (c *cuts) settle(todo *plan) {
	for r := range todo.remove {
		delete(c.refused, r)
	}
	for r, of := range todo.add {
		c.count++
		c.refused[r] = refusal{number: c.count, tenant: of}
	}
}

// adopt compares with what the kernel holds. What an earlier process left is
// taken over. What is missing of protocols that have a time was forgotten by the
// kernel, and is forgotten here; the rest is written again.
func (c *cuts) adopt(list []program.Refused, todo *plan) {
	there := make(map[program.Refused]bool, len(list))
	for _, r := range list {
		there[r] = true
		if _, known := c.refused[r]; !known {
			c.refused[r] = refusal{number: c.count}
		}
	}
	for r := range c.refused {
		switch {
		case there[r]:
		case r.Protocol == inet.TCP:
			todo.again = append(todo.again, r)
		default:
			delete(c.refused, r)
		}
	}
}

// ops returns the changes of the sets that go with those of the table.
func (c *cuts) ops(todo *plan, table []nft.Op) []nft.Op {
	if !todo.cutting {
		return nil // the sets go, or are not there
	}
	add := slices.DeleteFunc(todo.again, func(r program.Refused) bool { return todo.remove[r] })
	add = slices.AppendSeq(add, maps.Keys(todo.add))
	if len(table) > 0 && table[0].Kind <= nft.AddTable { // everything is made anew
		for r := range c.refused {
			if !todo.remove[r] {
				add = append(add, r)
			}
		}
		return ruleset.CutOps(add, nil)
	}
	return ruleset.CutOps(add, slices.Collect(maps.Keys(todo.remove)))
}

// sweep asks the kernel now and then what it has forgotten, so that the rules go
// when nothing is left to refuse.
func (d *Datapath) sweep(now time.Time) error {
	c := &d.cuts
	if len(c.refused) == 0 || now.Sub(c.swept) < sweepPeriod || !d.known {
		return nil
	}
	c.swept = now
	list, err := ruleset.ReadRefusals(d.conn)
	if err != nil {
		return err
	}
	var todo plan
	if c.adopt(list, &todo); len(todo.again) > 0 {
		d.note(nft.Notice{Table: true})
	}
	if len(c.refused) == 0 {
		d.events.awake()
	}
	return nil
}
