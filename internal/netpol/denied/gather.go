// SPDX-License-Identifier: Apache-2.0

package denied

import (
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// What the packets between two flushes may cost.
const (
	// maxFlows is how many flows are told apart; packets of others are skipped.
	maxFlows = 4096
	// maxRules is how many rules are looked at to find the nearest ones.
	maxRules = 100_000
)

// Gatherer collects denied packets until Flush makes records of them, one of each flow and
// direction. Its cost between two flushes is bounded. The zero value is ready; it is not safe for
// concurrent use.
type Gatherer struct {
	flows   map[key]*gathered
	order   []key
	skipped uint64
}

// key says which packets are of one record.
type key struct {
	Flow
	by By
}

// gathered is what is known of a flow's packets.
type gathered struct {
	view        *View
	count       uint64
	first, last time.Time
}

// Add adds a packet that was denied when the view was enforced.
func (g *Gatherer) Add(v *View, by By, f Flow, at time.Time) {
	k := key{f, by}
	if one := g.flows[k]; one != nil {
		one.view, one.last = v, at
		one.count++
		return
	}
	if len(g.order) == maxFlows {
		g.skipped++
		return
	}
	if g.flows == nil {
		g.flows = map[key]*gathered{}
	}
	g.flows[k] = &gathered{view: v, count: 1, first: at, last: at}
	g.order = append(g.order, k)
}

// Names finds out what records name beside the pods of the node.
type Names struct {
	// Owners finds the pods of other nodes, and nodes, by address. It is called once at most for each Flush.
	Owners func([]netip.Addr) map[netip.Addr]cluster.Owner
	// Services finds Services that are served on this node. May be nil.
	Services Services
}

// Services are those that this node serves. Ports of Services are named as namespace/name:port.
type Services interface {
	// Named returns the port of a Service at an address and port; "" if none is there.
	Named(inet.Protocol, netip.AddrPort) string
	// Behind returns the ports of Services that lead to each destination, sorted, and not more than a few.
	Behind([]Destination) map[Destination][]string
}

// Destination is where a packet goes.
type Destination struct {
	Protocol inet.Protocol
	At       netip.AddrPort
}

func (f Flow) destination() Destination {
	return Destination{f.Protocol, netip.AddrPortFrom(f.Dst, f.Port)}
}

// Empty reports whether Flush would return no record.
func (g *Gatherer) Empty() bool { return len(g.order) == 0 }

// Skipped is how many packets found no room, since the start.
func (g *Gatherer) Skipped() uint64 { return g.skipped }

// Flush returns the records of the packets since the last one, in the order in which they came.
// Packets of pods that are not isolated any more have none.
func (g *Gatherer) Flush(node string, names Names) []Record {
	var list []Record
	left := maxRules
	for _, k := range g.order {
		one := g.flows[k]
		r, ok := one.view.record(k.by, k.Flow)
		if !ok {
			continue
		}
		r.Node, r.First, r.Last, r.Count = node, one.first, one.last, one.count
		if cost := one.view.rules(&r); cost <= left {
			left -= cost
			r.Nearest = one.view.nearest(&r)
		} else {
			r.NearestSkipped = true
		}
		list = append(list, r)
	}
	g.flows, g.order = nil, nil
	name(list, names.Owners)
	nameServices(list, names.Services)
	return list
}

// nameServices fills in the Services that were called, or that may have been.
func nameServices(list []Record, s Services) {
	if s == nil {
		return
	}
	var unknown []Destination
	for i := range list {
		switch r := &list[i]; {
		case r.Called != nil:
			r.Called.Service = s.Named(r.flow.Protocol, r.flow.Called)
		case !r.flow.Told:
			unknown = append(unknown, r.flow.destination())
		}
	}
	if len(unknown) == 0 {
		return
	}
	behind := s.Behind(unknown)
	for i := range list {
		if r := &list[i]; !r.flow.Told {
			r.Services = behind[r.flow.destination()]
		}
	}
}

// name fills in the pods of other nodes, and nodes.
func name(list []Record, owners func([]netip.Addr) map[netip.Addr]cluster.Owner) {
	var unknown []netip.Addr
	ends := func(each func(*End)) {
		for i := range list {
			for _, e := range []*End{&list[i].Source, &list[i].Destination} {
				if e.Pod == nil {
					each(e)
				}
			}
		}
	}
	ends(func(e *End) { unknown = append(unknown, e.Address) })
	if len(unknown) == 0 {
		return
	}
	known := owners(unknown)
	ends(func(e *End) {
		e.Pod, e.Node = known[e.Address].Pod, known[e.Address].Node
	})
}
