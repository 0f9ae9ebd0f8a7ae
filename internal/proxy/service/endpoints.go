// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// endpoint is a backend of one port of a Service, with what all slices say about it.
type endpoint struct {
	program.Backend
	// ready takes connections; draining is serving and terminating, and takes them if none is ready.
	ready, draining bool
	own             bool // on this node
	// A ready endpoint may have hints for nodes and zones, which may name this node's.
	nodeHint, thisNode, zoneHint, thisZone bool
	// local and everywhere say to which of the two sets it belongs: the endpoints for policy Local
	// and those for policy Cluster.
	local, everywhere bool
}

// endpoints returns the endpoints of a port in one family, sorted by backend. An endpoint that
// several slices have is one: what one slice says of it holds, and hints hold if the endpoint is
// ready where they are.
func (e *environment) endpoints(list []*cluster.EndpointSlice, p cluster.ServicePort, f inet.Family) []endpoint {
	var all []endpoint
	for _, slice := range list {
		for _, port := range slice.Ports {
			if port.Name != p.Name || port.Protocol != p.Protocol {
				continue
			}
			all = slices.Grow(all, len(slice.Endpoints))
			for _, end := range slice.Endpoints {
				if inet.FamilyOf(end.Addr) == f {
					all = append(all, e.endpoint(end, port.Port))
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b endpoint) int { return compareBackends(a.Backend, b.Backend) })
	merged := all[:0]
	for _, x := range all {
		if n := len(merged); n > 0 && merged[n-1].Backend == x.Backend {
			merged[n-1].merge(x)
		} else {
			merged = append(merged, x)
		}
	}
	return merged
}

func compareBackends(a, b program.Backend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
}

func (e *environment) endpoint(end cluster.Endpoint, port uint16) endpoint {
	return endpoint{
		Backend:  program.Backend{Addr: end.Addr, Port: port},
		ready:    end.Ready,
		draining: end.Serving && end.Terminating,
		own:      end.Node != "" && end.Node == e.Node,
		nodeHint: end.Ready && len(end.NodeHints) > 0,
		thisNode: end.Ready && slices.Contains(end.NodeHints, e.Node),
		zoneHint: end.Ready && len(end.ZoneHints) > 0,
		thisZone: end.Ready && e.zone != "" && slices.Contains(end.ZoneHints, e.zone),
	}
}

func (x *endpoint) merge(o endpoint) {
	x.ready, x.draining, x.own = x.ready || o.ready, x.draining || o.draining, x.own || o.own
	x.nodeHint, x.thisNode = x.nodeHint || o.nodeHint, x.thisNode || o.thisNode
	x.zoneHint, x.thisZone = x.zoneHint || o.zoneHint, x.thisZone || o.thisZone
}

// choose decides to which sets the endpoints belong. The two are decided separately: in each, where
// none is ready those count that still serve while they terminate.
func choose(all []endpoint) {
	near := nearness(all)
	someLocal, some := false, false
	for i := range all {
		x := &all[i]
		x.local = x.ready && x.own
		x.everywhere = x.ready && near(x)
		someLocal, some = someLocal || x.local, some || x.everywhere
	}
	for i := range all {
		x := &all[i]
		x.local = x.local || !someLocal && x.draining && x.own
		x.everywhere = x.everywhere || !some && x.draining
	}
}

// nearness returns which ready endpoints the hints leave: those for this node if every ready
// endpoint has hints for nodes and one names this one; otherwise the same with zones; otherwise all.
func nearness(all []endpoint) func(*endpoint) bool {
	nodes, zones, thisNode, thisZone := true, true, false, false
	for _, x := range all {
		if x.ready {
			nodes, zones = nodes && x.nodeHint, zones && x.zoneHint
			thisNode, thisZone = thisNode || x.thisNode, thisZone || x.thisZone
		}
	}
	switch {
	case nodes && thisNode:
		return func(x *endpoint) bool { return x.thisNode }
	case zones && thisZone:
		return func(x *endpoint) bool { return x.thisZone }
	}
	return func(*endpoint) bool { return true }
}

// ranked is a backend with its place in the order of the slots of a front.
type ranked struct {
	program.Backend
	group uint8 // 0 only in the first set, 1 in both, 2 only in the second
	hash  uint64
}

// order returns the backends of a front in the order of their slots, so that each of the two sets is
// one range, and the numbers of those that are only in the local set, in both and in the other only.
// Within a group the order is that of a hash of front and backend: it depends on nothing else, and
// differs from front to front, so that a new backend does not get the same place everywhere.
func order(f program.Front, all []endpoint, local, everywhere bool) (list []ranked, count [3]int) {
	front := inet.Element{Addr: f.Addr, Protocol: f.Protocol, Port: f.Port}.Hash()
	list = make([]ranked, 0, len(all))
	for _, x := range all {
		inLocal, inAll := local && x.local, everywhere && x.everywhere
		r := ranked{Backend: x.Backend}
		switch {
		case inLocal && inAll:
			r.group = 1
		case inAll:
			r.group = 2
		case !inLocal:
			continue
		}
		r.hash = spread(front, inet.Element{Addr: x.Addr, Port: x.Port}.Hash())
		count[r.group]++
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.hash, b.hash), compareBackends(a.Backend, b.Backend))
	})
	return list, count
}

// spread mixes two hashes.
func spread(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 ^ b
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// ready counts the addresses of ready endpoints on this node, of the family that has more.
func (e *environment) ready(list []*cluster.EndpointSlice) int {
	seen := map[netip.Addr]bool{}
	var count [2]int
	for _, slice := range list {
		if len(slice.Ports) == 0 {
			continue
		}
		for _, end := range slice.Endpoints {
			if end.Ready && end.Node != "" && end.Node == e.Node && !seen[end.Addr] {
				seen[end.Addr] = true
				count[index(inet.FamilyOf(end.Addr))]++
			}
		}
	}
	return max(count[0], count[1])
}

// index returns the place of a family in inet.Families.
func index(f inet.Family) int { return slices.Index(inet.Families[:], f) }
