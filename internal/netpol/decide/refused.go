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
	// lenience is for how long a revival is refused after the connection is allowed
	// again. The end that began it should speak first: only then is it the same
	// connection, by its Service and judged as what it is. A TCP end of
	// Linux that has something to say repeats it at least every two minutes.
	lenience = 2 * time.Minute
	// MaxRefused bounds what the sets hold. Beyond it the oldest of those tenants go
	// that have more than a fair share.
	MaxRefused = 1 << 16
)

// free takes out of the sets what has been allowed again for long enough.
func (d *Decider) free(now time.Time, out *Decision) {
	for r, known := range d.refused {
		if !known.allowed.IsZero() && now.Sub(known.allowed) >= d.Lenience {
			out.Admit[r] = true
		}
	}
}

// bound makes room in the sets: the oldest of the tenants with most go, and nobody's
// who has no more than a fair share.
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

// give takes the oldest n of a tenant out of the sets, and then, if that is not
// enough, of what comes.
func (d *Decider) give(tenant string, n int, out *Decision) {
	var stay []program.Refused
	for r, known := range d.refused {
		if known.tenant == tenant && !out.Admit[r] {
			stay = append(stay, r)
		}
	}
	slices.SortFunc(stay, func(a, b program.Refused) int { return cmp.Compare(d.refused[a].number, d.refused[b].number) })
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

// Adopt compares with what the kernel refuses. What an earlier process left is
// taken over. What is missing of protocols that have a time was forgotten by the
// kernel, and is forgotten here; the rest is returned, to be written again.
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

// Refused returns what is refused, in no order.
func (d *Decider) Refused() iter.Seq[program.Refused] { return maps.Keys(d.refused) }

// CountRefused returns how many there are.
func (d *Decider) CountRefused() int { return len(d.refused) }
