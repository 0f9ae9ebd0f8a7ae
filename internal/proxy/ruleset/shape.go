// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
)

// shape is what the chains for a route depend on: all of it but the front. Routes of one shape share their
// chains. The name of a chain says all that its rules depend on.
type shape struct {
	inside, outside program.Pick
	admission       string
	// port is true for node ports: the address is not in the key of the backends then.
	port, sticky bool
}

func shapeOf(r program.Route) shape {
	return shape{inside: plain(r.Inside), outside: plain(r.Outside), admission: r.Admission,
		port: !r.Front.Addr.IsValid(), sticky: r.Sticky > 0}
}

// plain returns the pick without what has no effect.
func plain(p program.Pick) program.Pick {
	switch {
	case p.Count > 0:
		p.Otherwise = 0
	case p.Otherwise == program.Leave:
		return program.Pick{Otherwise: p.Otherwise, Masquerade: p.Masquerade}
	default:
		return program.Pick{Otherwise: p.Otherwise}
	}
	return p
}

// verdictOf returns the verdict for connections to the front of a route.
func verdictOf(r program.Route) nft.Verdict { return nft.GoTo(shapeOf(r).name()) }

// name returns the name of the chain that connections enter.
func (s shape) name() string {
	if s.admission != "" {
		return "admit-" + s.admission + "-" + s.admitted().name()
	}
	if s.inside == s.outside {
		return s.pick(s.inside)
	}
	return "inside-" + s.pick(s.inside) + "-outside-" + s.pick(s.outside)
}

// admitted returns the shape of the route for admitted clients.
func (s shape) admitted() shape {
	s.admission = ""
	return s
}

// pick returns the name of the chain of a pick.
func (s shape) pick(p program.Pick) string {
	whom := [...]string{program.Never: "", program.Strangers: "strangers-", program.Always: "masquerade-"}
	switch {
	case p.Count > 0:
	case p.Otherwise == program.Reject:
		return chainNoBackend
	case p.Otherwise == program.Leave:
		return whom[p.Masquerade] + chainLeave
	default:
		return chainSilent
	}
	return whom[p.Masquerade] + choice{p.First, p.Count, s.port, s.sticky}.name()
}

// choice is what the chain that chooses a backend depends on.
type choice struct {
	first, count uint16
	port, sticky bool
}

func (c choice) name() string {
	name := fmt.Sprintf("pick-%d", c.count)
	if c.first > 0 {
		name += fmt.Sprintf("-from-%d", c.first)
	}
	if c.port {
		name = "port-" + name
	}
	if c.sticky {
		name = "sticky-" + name
	}
	return name
}

// stick is what the chain of a backend of a sticky front depends on.
type stick struct {
	front  program.Front
	to     program.Backend
	sticky program.Seconds
}

func stickOf(s program.Slot) stick { return stick{s.Front, s.Backend, s.Sticky} }

// name returns the name of the chain. Timeouts are not in it: a changed one changes its rules.
func (s stick) name() string {
	return "stick-" + frontName(s.front) + "-to-" + addrName(s.to.Addr.String()) + fmt.Sprintf("-%d", s.to.Port)
}

// frontName returns a front as part of a name.
func frontName(f program.Front) string {
	where := "node"
	if f.Addr.IsValid() {
		where = addrName(f.Addr.String())
	}
	return fmt.Sprintf("%s-%s-%d", f.Protocol, where, f.Port)
}

// addrName replaces what nft does not allow in a name.
func addrName(addr string) string { return strings.ReplaceAll(addr, ":", "-") }

// AffinitySet describes the map of the clients that a sticky front of a family remembers.
func AffinitySet(f program.Front, family inet.Family, s Settings) *nft.Set {
	return &nft.Set{Name: prefixAffinity + frontName(f), Key: either(family, nft.Addr4, nft.Addr6),
		Data: either(family, nft.Addr4Port, nft.Addr6Port), Dynamic: true, Size: s.withDefaults().Affinity, Kept: true,
		Comment: "clients of a Service with affinity"}
}

// needs counts the routes of each shape, the backends of sticky fronts, and these fronts.
type needs struct {
	shapes map[shape]int
	sticks map[stick]int
	fronts map[program.Front]int
}

// change counts the differences between two programs. changed is true if other chains or sets are needed.
func (n *needs) change(old, now *program.Program) (changed bool) {
	if n.shapes == nil {
		n.shapes, n.sticks, n.fronts = map[shape]int{}, map[stick]int{}, map[program.Front]int{}
	}
	more, less := now.Routes.Diff(old.Routes)
	for _, r := range more {
		changed = n.route(r, 1) || changed
	}
	for _, r := range less {
		changed = n.route(r, -1) || changed
	}
	slots, gone := now.Slots.Diff(old.Slots)
	for _, s := range slots {
		changed = n.slot(s, 1) || changed
	}
	for _, s := range gone {
		changed = n.slot(s, -1) || changed
	}
	return changed
}

func (n *needs) route(r program.Route, by int) bool {
	changed := count(n.shapes, shapeOf(r), by)
	if r.Sticky > 0 {
		changed = count(n.fronts, r.Front, by) || changed
	}
	return changed
}

func (n *needs) slot(s program.Slot, by int) bool {
	return s.Sticky > 0 && count(n.sticks, stickOf(s), by)
}

// count adds to a count, and reports whether the key came or went.
func count[K comparable](counts map[K]int, k K, by int) bool {
	before := counts[k]
	if before+by == 0 {
		delete(counts, k)
		return true
	}
	counts[k] = before + by
	return before == 0
}
