// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// endpoint is an address and port that some slice of the Service names.
type endpoint struct {
	at  netip.AddrPort
	own bool
	// ready and draining endpoints are those that some slice calls so.
	ready, draining bool
	// Of the hints of a ready endpoint: whether there are some, and whether they name this node or
	// its zone.
	forNodes, forThisNode, forZones, forThisZone bool
}

// endpoints returns what the slices of the Service say about one port: "EndpointSlices must be
// joined to produce the full set of endpoints". An endpoint may be in more than one slice, for a while.
func (q question) endpoints(s *cluster.Service, port cluster.ServicePort) []*endpoint {
	found := map[netip.AddrPort]*endpoint{}
	for _, slice := range q.snap.Slices {
		if slice.Key.Namespace != s.Key.Namespace || slice.Service != s.Key.Name {
			continue
		}
		for _, p := range slice.Ports {
			for _, e := range slice.Endpoints {
				// "If the EndpointSlice is derived from a Kubernetes service, this corresponds to the
				// Service.ports[].name."
				if p.Name == port.Name && p.Protocol == port.Protocol && e.Addr.Is4() == q.Dst.Is4() {
					q.note(found, e, p.Port)
				}
			}
		}
	}
	var list []*endpoint
	for _, e := range found {
		list = append(list, e)
	}
	return list
}

func (q question) note(found map[netip.AddrPort]*endpoint, raw cluster.Endpoint, port uint16) {
	at := netip.AddrPortFrom(raw.Addr, port)
	e := found[at]
	if e == nil {
		e = &endpoint{at: at}
		found[at] = e
	}
	if raw.Node == q.set.Node && raw.Node != "" {
		e.own = true
	}
	if raw.Serving && raw.Terminating {
		e.draining = true
	}
	if !raw.Ready {
		return
	}
	e.ready = true
	e.forNodes = e.forNodes || len(raw.NodeHints) > 0
	e.forZones = e.forZones || len(raw.ZoneHints) > 0
	if slices.Contains(raw.NodeHints, q.set.Node) {
		e.forThisNode = true
	}
	if zone := q.zone(); zone != "" && slices.Contains(raw.ZoneHints, zone) {
		e.forThisZone = true
	}
}

func (q question) zone() string {
	for _, n := range q.snap.Nodes {
		if n.Name == q.set.Node {
			return n.Zone
		}
	}
	return ""
}

// local returns the endpoints for policy Local: the ready ones of this node, or if there are none those
// that still serve while they terminate (KEP-1669).
func local(all []*endpoint) []*endpoint {
	ready := filter(all, func(e *endpoint) bool { return e.own && e.ready })
	if len(ready) > 0 {
		return ready
	}
	return filter(all, func(e *endpoint) bool { return e.own && e.draining })
}

// everywhere returns the endpoints for policy Cluster: the ready ones, of which hints may leave some,
// or if there are none those that still serve while they terminate.
//
// Hints hold if every ready endpoint has them and one is for us; those for nodes come first. forNodes:
// "the node(s) this endpoint should be consumed by when using topology aware routing".
func everywhere(all []*endpoint) []*endpoint {
	ready := filter(all, func(e *endpoint) bool { return e.ready })
	if len(ready) == 0 {
		return filter(all, func(e *endpoint) bool { return e.draining })
	}
	unhinted := filter(ready, func(e *endpoint) bool { return !e.forNodes })
	ours := filter(ready, func(e *endpoint) bool { return e.forThisNode })
	if len(unhinted) == 0 && len(ours) > 0 {
		return ours
	}
	unhinted = filter(ready, func(e *endpoint) bool { return !e.forZones })
	ours = filter(ready, func(e *endpoint) bool { return e.forThisZone })
	if len(unhinted) == 0 && len(ours) > 0 {
		return ours
	}
	return ready
}

func filter(list []*endpoint, keep func(*endpoint) bool) (kept []*endpoint) {
	for _, e := range list {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// Ready returns how many endpoints of a Service on the node are ready, for the health-check node port:
// addresses, of the family that has more.
func Ready(snap *cluster.ServiceSnapshot, set Settings, service cluster.Key) int {
	count := map[bool]map[netip.Addr]bool{true: {}, false: {}}
	for _, slice := range snap.Slices {
		for _, e := range slice.Endpoints {
			ours := slice.Key.Namespace == service.Namespace && slice.Service == service.Name
			if ours && len(slice.Ports) > 0 && e.Ready && e.Node == set.Node && e.Node != "" {
				count[e.Addr.Is4()][e.Addr] = true
			}
		}
	}
	return max(len(count[true]), len(count[false]))
}
