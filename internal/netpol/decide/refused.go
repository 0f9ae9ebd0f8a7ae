// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The other half of a cut: a record of each connection that was cut, so that its replying end does
// not revive it. The kernel's sets hold it, and the map refused mirrors them.

// refusal is the state of one element of the sets.
type refusal struct {
	number  uint64    // position in the order of arrival
	tenant  string    // of the pod that it protects; empty if not known
	allowed time.Time // since when the connection is allowed again; zero if it is not
	judged  bool      // against asked
}

// asked is what refused connections were judged by. It may be a program that was never committed.
type asked struct {
	program *program.Program // nil before the first
	node    []netip.Addr
}

// ask judges the refused connections that the change may concern; the verdicts of the others stay
// the same. Each costs up to thousands of rules.
func (d *Decider) ask(p *program.Program, node []netip.Addr, others map[netip.Addr]bool, now time.Time, out *Decision) {
	all, differ := true, map[netip.Addr]bool{}
	if d.asked.program != nil && slices.Equal(d.asked.node, node) {
		all, differ = false, cut.Differing(d.policed(d.asked.program), d.policed(p))
	}
	d.asked = asked{p, node}
	for r, known := range d.refused {
		if others[r.Src] || others[r.Dst] {
			out.Admit[r] = true
			continue
		}
		if known.judged && !all && !differ[r.Src] && !differ[r.Dst] {
			continue
		}
		known.judged = true
		switch by, denied := out.Judge.Denied(r.Flow()); {
		case denied:
			known.allowed, known.tenant = time.Time{}, by.Tenant
		case known.allowed.IsZero():
			known.allowed = now
			out.Release = true
		}
		d.refused[r] = known
	}
}

const (
	// lenience is how long a revival is refused after the connection is allowed again. The end that
	// began it should send first: only then is it recognized as the same connection, through its
	// Service and with its own verdict. A TCP end of Linux with unacknowledged data repeats it at
	// least every two minutes.
	lenience = 2 * time.Minute
	// MaxRefused bounds the size of the sets. Above it the oldest elements of the tenants with more
	// than a fair share are removed.
	MaxRefused = 1 << 16
)

// free removes the elements whose connection has been allowed again for long enough.
func (d *Decider) free(now time.Time, out *Decision) {
	for r, known := range d.refused {
		if !known.allowed.IsZero() && now.Sub(known.allowed) >= d.Lenience {
			out.Admit[r] = true
		}
	}
}

// bound makes room in the sets: it removes the oldest elements of the tenants with most, and none
// of a tenant with at most a fair share.
func (d *Decider) bound(out *Decision) {
	excess := len(d.refused) + len(out.Refuse) - len(out.Admit) - MaxRefused
	if excess <= 0 {
		return
	}
	held := map[string]int{}
	for r, known := range d.refused {
		if !out.Admit[r] {
			held[known.tenant]++
		}
	}
	for _, of := range out.Refuse {
		held[of]++
	}
	var losers []string
	for of, n := range cut.FairShares(held, MaxRefused) {
		if n < held[of] {
			losers = append(losers, of)
			d.give(of, held[of]-n, out)
		}
	}
	slices.Sort(losers)
	out.Lost = &Overflow{Count: excess, Tenants: losers}
}

// give removes the oldest n elements of a tenant, and then, if that is not enough, new ones.
func (d *Decider) give(tenant string, n int, out *Decision) {
	var stay []program.Refused
	for r, known := range d.refused {
		if known.tenant == tenant && !out.Admit[r] {
			stay = append(stay, r)
		}
	}
	slices.SortFunc(stay, func(a, b program.Refused) int {
		return cmp.Compare(d.refused[a].number,
			d.refused[b].number)
	})
	for _, r := range stay[:min(n, len(stay))] {
		out.Admit[r] = true
	}
	n -= len(stay)
	for r, of := range out.Refuse {
		if n > 0 && of == tenant {
			delete(out.Refuse, r)
			n--
		}
	}
}

// Adopt compares with the elements in the kernel. Elements that an earlier process left are
// adopted. Missing elements of protocols with a timeout have expired in the kernel and are removed
// here; other missing ones are returned, to be written again.
func (d *Decider) Adopt(list []program.Refused) (again []program.Refused) {
	there := make(map[program.Refused]bool, len(list))
	for _, r := range list {
		there[r] = true
		if _, known := d.refused[r]; !known {
			d.refused[r] = refusal{number: d.count}
		}
	}
	for r := range d.refused {
		switch {
		case there[r]:
		case r.Protocol == inet.TCP:
			again = append(again, r)
		default:
			delete(d.refused, r)
		}
	}
	return again
}

// Refused returns the refused packets, in no particular order.
func (d *Decider) Refused() iter.Seq[program.Refused] { return maps.Keys(d.refused) }

// CountRefused returns their number.
func (d *Decider) CountRefused() int { return len(d.refused) }
