// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"strings"
)

// group names ends. An end is in no flow with itself: if it is alone on the other side of
// the flows, it is not missed.
func (c *comparer) group(members, others []int, with With) Group {
	g := Group{}
	for _, i := range members {
		g.Ends = append(g.Ends, c.ends[i].name())
	}
	n := namer{c: c, in: map[int]bool{}, free: map[int]bool{}, states: [2]bool{with != NewPods, with != GonePods}}
	for _, i := range members {
		n.in[i] = true
	}
	for i, e := range c.ends {
		// What is not in the state, or cannot be in a flow, is not missed.
		n.free[i] = len(others) == 1 && (i == others[0] || !e.host && e.key == c.ends[others[0]].key) ||
			n.absent(e)
	}
	g.Text = n.name()
	return g
}

// namer finds words for a set of ends.
type namer struct {
	c        *comparer
	in, free map[int]bool
	states   [2]bool // those in which an end must be to be missed
}

// absent reports whether flows of the kind that is named cannot have the end.
func (n namer) absent(e *end) bool {
	for state, must := range n.states {
		if must && !e.there(state) {
			return true
		}
	}
	return false
}

// whole reports whether all ends that the filter selects are in the set, or are not missed;
// and more than one is in it, unless it is the only one that there is.
func (n namer) whole(selects func(*end) bool) bool {
	in, all := 0, 0
	for i, e := range n.c.ends {
		switch {
		case !selects(e):
		case n.in[i]:
			in, all = in+1, all+1
		case !n.free[i]:
			return false
		case !n.absent(e):
			all++
		}
	}
	return in > 1 || in == 1 && all == 1
}

const maxParts = 3

// name returns the shortest words for the set.
func (n namer) name() string {
	anyPod := func(e *end) bool { return !e.host }
	anyHost := func(e *end) bool { return e.host }
	switch {
	case n.some(anyHost) && n.whole(func(*end) bool { return true }):
		return "everybody"
	case n.whole(anyPod) && !n.some(anyHost):
		return "every pod"
	}
	parts := n.parts()
	if len(parts) <= maxParts {
		return strings.Join(parts, ", ")
	}
	rest := namer{c: n.c, in: map[int]bool{}, free: map[int]bool{}, states: n.states}
	pods := !n.some(anyHost)
	for i, e := range n.c.ends {
		rest.in[i] = !n.in[i] && !n.free[i] && !(pods && e.host)
		rest.free[i] = n.free[i]
	}
	if others := rest.parts(); len(others) < len(parts) && len(others) <= maxParts {
		whom := "everybody but "
		if pods {
			whom = "every pod but "
		}
		return whom + strings.Join(others, ", ")
	}
	return strings.Join(parts, ", ")
}

func (n namer) some(selects func(*end) bool) bool {
	for i, e := range n.c.ends {
		if n.in[i] && selects(e) {
			return true
		}
	}
	return false
}

// parts names namespaces of which all pods are in the set, then workloads, then pods.
func (n namer) parts() (list []string) {
	named := map[int]bool{}
	for i, e := range n.c.ends {
		if !n.in[i] || named[i] {
			continue
		}
		text, covers := n.part(e)
		list = append(list, text)
		for j, other := range n.c.ends {
			named[j] = named[j] || covers(other)
		}
	}
	return list
}

func (n namer) part(e *end) (text string, covers func(*end) bool) {
	if e.host {
		all := func(o *end) bool { return o.host }
		if n.whole(all) && n.count(all) > 1 {
			return "every host outside", all
		}
		return e.name() + " (outside)", func(o *end) bool { return o == e }
	}
	sameNamespace := func(o *end) bool { return !o.host && o.key.Namespace == e.key.Namespace }
	w := n.c.workload(e)
	same := func(o *end) bool { return sameNamespace(o) && (w != "" && n.c.workload(o) == w || o == e) }
	others := func(o *end) bool { return sameNamespace(o) && !same(o) }
	switch {
	case n.some(others) && n.whole(sameNamespace) && n.count(sameNamespace) > 1:
		return "every pod of namespace " + e.key.Namespace, sameNamespace
	case w == "" || !n.whole(same):
		return e.name(), func(o *end) bool { return o == e }
	case n.count(same) > 1:
		return fmt.Sprintf("%s/%s ×%d", e.key.Namespace, w, n.count(same)), same
	}
	return e.key.Namespace + "/" + w, same
}

// count returns how many ends of the set, or of those that are not missed, the filter
// selects.
func (n namer) count(selects func(*end) bool) (count int) {
	for i, e := range n.c.ends {
		if selects(e) && (n.in[i] || n.free[i] && !n.absent(e)) {
			count++
		}
	}
	return count
}

func (c *comparer) workload(e *end) string {
	for _, s := range c.states {
		if w := s.Workload[e.key]; w != "" {
			return w
		}
	}
	return ""
}
