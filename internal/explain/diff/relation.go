// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// relation are all pairs of ends whose flows change alike.
type relation struct {
	kind
	ports    []int
	because  []Cause
	from, to []bitset // by destination its sources, and by source its destinations
}

// kind is what the changes of one relation have in common, apart from ports and causes.
type kind struct {
	opens bool
	with  With
	only  Family // empty: all families that the ends have in common
}

// change is what happens to one pair on one port.
type change struct {
	kind
	because []Cause
}

func (c change) key() string { return fmt.Sprintf("%t %s %s %v", c.opens, c.with, c.only, c.because) }

// relations compares every pair on every port, and puts pairs together that change alike
// on the same ports. What happens to one pair happens to all pairs of the same classes.
func (c *comparer) relations() ([]*relation, error) {
	found := map[string]*relation{}
	known := map[[2]int][]*relation{}
	for s, src := range c.ends {
		for d, dst := range c.ends {
			if !asked(src, dst) {
				continue
			}
			classes := [2]int{src.class, dst.class}
			list, seen := known[classes]
			if !seen {
				var err error
				if list, err = c.relationsOf(src, dst, found); err != nil {
					return nil, err
				}
				known[classes] = list
			}
			for _, r := range list {
				r.from[d].set(s)
				r.to[s].set(d)
			}
		}
	}
	list := make([]*relation, 0, len(found))
	for _, k := range slices.Sorted(maps.Keys(found)) {
		list = append(list, found[k])
	}
	return list, nil
}

// relationsOf returns the relations that a pair is in; new ones are added to those found.
func (c *comparer) relationsOf(src, dst *end, found map[string]*relation) (list []*relation, err error) {
	changes, ports, err := c.pairChanges(src, dst)
	for key, ch := range changes {
		full := fmt.Sprintf("%s on %v", key, ports[key])
		if found[full] == nil {
			found[full] = &relation{kind: ch.kind, ports: ports[key], because: ch.because,
				from: newBits(len(c.ends)), to: newBits(len(c.ends))}
		}
		list = append(list, found[full])
	}
	return list, err
}

// pairChanges returns what happens to a pair, and on which ports.
func (c *comparer) pairChanges(src, dst *end) (map[string]change, map[string][]int, error) {
	var changes map[string]change
	var ports map[string][]int
	for p := range c.ports {
		list, err := c.portChanges(src, dst, p)
		if err != nil {
			return nil, nil, err
		}
		for _, ch := range list {
			if changes == nil {
				changes, ports = map[string]change{}, map[string][]int{}
			}
			changes[ch.key()] = ch
			ports[ch.key()] = append(ports[ch.key()], p)
		}
	}
	return changes, ports, nil
}

// portChanges returns at most one change of each family, or one of both together.
func (c *comparer) portChanges(src, dst *end, port int) (list []change, err error) {
	common := 0
	for family, name := range families() {
		before, err := c.allowed(old, family, port, src, dst)
		if err != nil {
			return nil, err
		}
		after, err := c.allowed(now, family, port, src, dst)
		if err != nil {
			return nil, err
		}
		inOld, inNow := c.flows(old, family, src, dst), c.flows(now, family, src, dst)
		if inOld || inNow {
			common++
		}
		if before == after {
			continue
		}
		ch := change{kind: kind{opens: after, only: name}}
		switch {
		case inOld && inNow:
			if ch.because, err = c.because(family, port, src, dst, after); err != nil {
				return nil, err
			}
		case after:
			ch.with = NewPods
		default:
			ch.with = GonePods
		}
		list = append(list, ch)
	}
	return joined(list, common), nil
}

// joined makes one change of those of all families.
func joined(list []change, common int) []change {
	if len(list) == 0 || len(list) < common {
		return list
	}
	one := list[0]
	one.only = ""
	for _, ch := range list[1:] {
		if ch.only = ""; ch.key() != one.key() {
			return list
		}
	}
	return []change{one}
}

// alike reports whether two ends may be named together.
func (c *comparer) alike(i, j int) bool { return c.ends[i].host == c.ends[j].host }

// changes returns the rectangles of a relation, by destinations or by sources, whichever
// are fewer.
func (c *comparer) changes(r *relation) []Change {
	byTo, byFrom := rectangles(r.from, c.alike), rectangles(r.to, c.alike)
	if len(byFrom) < len(byTo) {
		for i := range byFrom {
			byFrom[i].one, byFrom[i].other = byFrom[i].other, byFrom[i].one
		}
		byTo = byFrom
	}
	list := make([]Change, 0, len(byTo))
	for _, rect := range byTo {
		ch := Change{Opens: r.opens, With: r.with, Because: r.because, only: r.only,
			Sources: c.group(rect.other, rect.one, r.with), Destinations: c.group(rect.one, rect.other, r.with)}
		for _, p := range r.ports {
			ch.Ports = append(ch.Ports, c.ports[p])
		}
		ch.Families, ch.Flows = c.count(r, rect)
		list = append(list, ch)
	}
	return list
}

// count returns the families of the flows of a rectangle, and the number of flows.
func (c *comparer) count(r *relation, rect rectangle) (list []Family, flows int) {
	state := old
	if r.opens {
		state = now
	}
	for family, name := range families() {
		n := 0
		for _, s := range rect.other {
			for _, d := range rect.one {
				if r.from[d].has(s) && c.flows(state, family, c.ends[s], c.ends[d]) {
					n++
				}
			}
		}
		if n > 0 && (r.only == "" || r.only == name) {
			list, flows = append(list, name), flows+n*len(r.ports)
		}
	}
	return list, flows
}

func (c Change) compare(o Change) int {
	rank := func(c Change) int {
		n := map[With]int{Staying: 0, NewPods: 1, GonePods: 2}[c.With] * 2
		if !c.Opens {
			n++
		}
		return n
	}
	return cmp.Or(cmp.Compare(rank(c), rank(o)), cmp.Compare(c.Destinations.Text, o.Destinations.Text),
		cmp.Compare(c.Sources.Text, o.Sources.Text), slices.CompareFunc(c.Ports, o.Ports, compareRanges),
		strings.Compare(fmt.Sprint(c.Families, c.Because), fmt.Sprint(o.Families, o.Because)))
}
