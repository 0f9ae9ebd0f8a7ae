// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// What one Service, and all of a namespace, may cost a node. The fronts of a Service are its ports times its
// addresses, and each front has a slot for each endpoint: a few objects of the API could ask for more than any
// node has.
const (
	// MaxFronts is how many fronts of a Service are served.
	MaxFronts = 4096
	// MaxServiceSlots is how many slots the fronts of a Service have, all together: enough for two fronts
	// of the largest size.
	MaxServiceSlots = 2 * program.MaxSlots
	// MaxNamespaceWeight is how much the Services of a namespace weigh together, see weigh.
	MaxNamespaceWeight = 262_144
	// maxFindings is how many findings about the addresses of a Service are told, and as many about fronts
	// that older Services have. A Service may have a thousand of each, and each pass reads all.
	maxFindings = 10
)

// few returns the first findings of a Service. total is how many there are, of which found may have the first
// ones only.
func few(found []cluster.Diagnostic, total int) []cluster.Diagnostic {
	if total <= maxFindings {
		return found
	}
	last := found[maxFindings-1]
	last.Message += fmt.Sprintf(" (and %d more findings about this Service)", total-maxFindings)
	return append(found[:maxFindings-1:maxFindings-1], last)
}

// put adds a claim as long as there is room.
func (b *claimBuilder) put(c claim) {
	if len(b.list) < MaxFronts {
		b.list = append(b.list, c)
		return
	}
	if b.full {
		return
	}
	b.full = true
	b.say(cluster.Error, c.field(), fmt.Sprintf("the Service has more than %d ports, counted at each of its "+
		"addresses: from %s on it is not served", MaxFronts, c), "use several Services, or fewer ports or addresses")
}

// tooLarge is the diagnostic of a Service whose last fronts are not served.
func tooLarge(s *cluster.Service, c claim) cluster.Diagnostic {
	return cluster.Diagnostic{Severity: cluster.Error, Kind: kindService, Object: s.Key, Field: c.field(),
		Message: fmt.Sprintf("the Service has more than %d endpoints, counted for each of its ports at each of its "+
			"addresses: from %s on it is not served", MaxServiceSlots, c),
		Cure: "use several Services, or fewer ports or addresses"}
}

// weigh returns what a Service counts in the budget of its namespace: its fronts, and for each of them every
// endpoint of its family. It depends on nothing but the objects, and may be more than what is served in the
// end, as where an older Service has a front; it is never more than what is served of one Service.
func weigh(s *cluster.Service, list []*cluster.EndpointSlice) int {
	fronts, slots := 0, 0
	for _, f := range inet.Families {
		n := frontsOf(s, f)
		fronts, slots = fronts+n, slots+n*endpointsOf(list, f)
	}
	return min(fronts, MaxFronts) + min(slots, MaxServiceSlots)
}

// frontsOf returns how many fronts of a family a Service wants.
func frontsOf(s *cluster.Service, f inet.Family) (n int) {
	count := func(list []netip.Addr) {
		for _, a := range list {
			if inet.FamilyOf(a) == f {
				n += len(s.Ports)
			}
		}
	}
	count(s.ClusterIPs)
	if n == 0 || s.External == nil {
		return n // outside of its families a Service has no address
	}
	count(outsideAddresses(s))
	return n + len(s.Ports) // node ports
}

func endpointsOf(list []*cluster.EndpointSlice, f inet.Family) (n int) {
	for _, s := range list {
		for _, end := range s.Endpoints {
			if inet.FamilyOf(end.Addr) == f {
				n++
			}
		}
	}
	return n
}

// tooMuch sorts the Services of a namespace and returns those that a budget has no room for: the oldest come
// first, and one that has no room does not keep smaller ones out.
func tooMuch[S any](list []S, budget int, service func(S) *cluster.Service, weigh func(S) int) (out []S) {
	slices.SortFunc(list, func(a, b S) int { return older(service(a), service(b)) })
	left := budget
	for _, s := range list {
		if w := weigh(s); w <= left {
			left -= w
		} else {
			out = append(out, s)
		}
	}
	return out
}

// leftOut is the diagnostic of a Service that the budget of its namespace has no room for.
func leftOut(s *cluster.Service) cluster.Diagnostic {
	return cluster.Diagnostic{Severity: cluster.Error, Kind: kindService, Object: s.Key, Field: "spec",
		Message: fmt.Sprintf("the Services of namespace %s have more than %d addresses with a port, each counted with "+
			"its endpoints: this Service is not served, older ones are", s.Key.Namespace, MaxNamespaceWeight),
		Cure: "use fewer ports, addresses or endpoints in this namespace, or several namespaces"}
}

// space is a namespace: what its Services weigh, and which of them its budget has no room for.
type space struct {
	weight map[*entry]int
	total  int
	out    map[*entry]bool
}

// weighAgain takes over that Services or their endpoints changed. Where a namespace has more than its budget, it
// decides again who is left out, and has the claims of those decided for whom this changes.
func (x *Index) weighAgain(w *work) {
	changed := map[string]bool{}
	note := func(e *entry) {
		changed[e.key.Namespace] = true
		x.space(e.key.Namespace).set(e)
	}
	for e := range w.claims {
		note(e)
	}
	for e := range w.parts {
		note(e)
	}
	for name := range changed {
		s := x.spaces[name]
		for e := range s.decide(x.budget) {
			w.claims[e] = true
		}
		if len(s.weight) == 0 {
			delete(x.spaces, name)
		}
	}
}

func (x *Index) space(name string) *space {
	s := x.spaces[name]
	if s == nil {
		s = &space{weight: map[*entry]int{}}
		x.spaces[name] = s
	}
	return s
}

// left reports whether the budget has no room for an entry.
func (x *Index) left(e *entry) bool {
	s := x.spaces[e.key.Namespace]
	return s != nil && s.out[e]
}

func (s *space) set(e *entry) {
	s.total -= s.weight[e]
	delete(s.weight, e)
	if e.service != nil {
		s.weight[e] = weigh(e.service, e.slices)
		s.total += s.weight[e]
	}
}

// decide finds who is left out, and returns those for whom this is new.
func (s *space) decide(budget int) map[*entry]bool {
	was := s.out
	s.out = nil
	if s.total > budget {
		s.out = map[*entry]bool{}
		list := slices.Collect(maps.Keys(s.weight))
		service := func(e *entry) *cluster.Service { return e.service }
		for _, e := range tooMuch(list, budget, service, func(e *entry) int { return s.weight[e] }) {
			s.out[e] = true
		}
	}
	return difference(was, s.out)
}

// difference returns what is in one of two sets only.
func difference(a, b map[*entry]bool) map[*entry]bool {
	if len(a)+len(b) == 0 {
		return nil // the usual case, in each pass
	}
	out := map[*entry]bool{}
	for e := range a {
		if !b[e] {
			out[e] = true
		}
	}
	for e := range b {
		if !a[e] {
			out[e] = true
		}
	}
	return out
}
