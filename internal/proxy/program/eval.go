// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// Packet is the input of Eval: the first packet of a connection, before any translation.
type Packet struct {
	Protocol inet.Protocol
	Src, Dst netip.Addr
	// DstPort is 0 for protocols without ports.
	DstPort uint16
	// FromNode is true if the source address is one of this node's own.
	FromNode bool
	// At is when the packet arrives, after a start that the caller chooses. Only affinity depends on
	// it.
	At Seconds
}

// Fate is what happens to a packet.
type Fate uint8

// The fates. The zero value is the silent one.
const (
	Dropped Fate = iota
	Rejected
	Forwarded // to a backend
	NotOurs   // the proxy leaves the packet as it is
	Left      // to IPVS, for a backend
)

// Outcome is the result of Eval.
type Outcome struct {
	Fate Fate
	// Backend is the new destination, if the packet is forwarded.
	Backend Backend
	// Masqueraded is true if the node's address replaces the source. If the packet is left to IPVS and comes
	// back to its own sender, it is replaced all the same, where Loops has the sender.
	Masqueraded bool
}

// Eval returns what the node that runs the program does with a packet, and what it remembers
// afterwards. choose returns one of 0 to count-1, each as likely; tests pass what they want. Eval is
// the reference for every backend.
func Eval(p *Program, packet Packet, m Memory, choose func(count int) int) (Outcome, Memory) {
	if packet.Dst.IsValid() && inet.FamilyOf(packet.Dst) != p.Family {
		return Outcome{Fate: NotOurs}, m
	}
	r, fate := p.At(Front{packet.Dst, packet.Protocol, packet.DstPort})
	if fate == Forwarded {
		return p.follow(r, packet, m, choose)
	}
	return Outcome{Fate: fate}, m
}

// At returns the route that answers packets to an address, protocol and port, with the fate Forwarded; a route may
// still reject or drop some. Without a route the fate is what happens to all of them.
func (p *Program) At(to Front) (Route, Fate) {
	if r, ok := p.Route(to); ok {
		return r, Forwarded
	}
	switch {
	case p.ClusterAddresses.Has(inet.Element{Addr: to.Addr}):
		return Route{}, Rejected
	case within(p.ServiceRanges, to.Addr):
		return Route{}, Dropped
	case slices.Contains(p.NodeAddresses, to.Addr):
		if r, ok := p.Route(Front{netip.Addr{}, to.Protocol, to.Port}); ok {
			return r, Forwarded
		}
	}
	return Route{}, NotOurs
}

// follow answers a packet to the front of a route.
func (p *Program) follow(r Route, packet Packet, m Memory, choose func(count int) int) (Outcome, Memory) {
	if !p.admits(r.Admission, packet.Src) {
		return Outcome{Fate: Dropped}, m
	}
	pick := p.PickOf(r, packet)
	if pick.Count == 0 {
		switch pick.Otherwise {
		case Reject:
			return Outcome{Fate: Rejected}, m
		case Leave:
			return Outcome{Fate: Left, Masqueraded: p.masqueradesAll(pick.Masquerade, packet.Src)}, m
		}
		return Outcome{Fate: Dropped}, m
	}
	var to Backend
	known := false
	if r.Sticky > 0 {
		to, known = m.recall(r.Front, packet)
		known = known && slices.Contains(p.Backends(r.Front, pick), to)
	}
	if !known {
		s, ok := p.Slot(r.Front, pick.First+uint16(choose(int(pick.Count))))
		if !ok {
			return Outcome{Fate: Dropped}, m // not a program that Check accepts
		}
		to = s.Backend
	}
	if r.Sticky > 0 {
		m = m.with(r.Front, packet, to, r.Sticky)
	}
	return Outcome{Forwarded, to, p.masquerades(pick.Masquerade, packet.Src, to)}, m
}

// PickOf returns the choice that the route has for the client of a packet.
func (p *Program) PickOf(r Route, packet Packet) Pick {
	if packet.FromNode || within(p.NodePods, packet.Src) {
		return r.Inside
	}
	return r.Outside
}

// admits reports whether a client may connect to routes with the admission. A name without a list
// admits nobody.
func (p *Program) admits(name string, client netip.Addr) bool {
	if name == "" {
		return true
	}
	i := slices.IndexFunc(p.Admissions, func(a Admission) bool { return a.Name == name })
	return i >= 0 && within(p.Admissions[i].Ranges, client)
}

func (p *Program) masquerades(m Masquerade, client netip.Addr, to Backend) bool {
	return p.masqueradesAll(m, client) || client == to.Addr && p.Loops.Has(inet.Element{Addr: client})
}

// masqueradesAll reports whether the client's source is replaced whatever the backend is.
func (p *Program) masqueradesAll(m Masquerade, client netip.Addr) bool {
	return m == Always || m == Strangers && !within(p.ClusterPods, client)
}

// Route returns the route of a front.
func (p *Program) Route(f Front) (Route, bool) {
	return p.Routes.Find(f.hash(0), func(r Route) bool { return r.Front == f })
}

// Slot returns a numbered backend of a front.
func (p *Program) Slot(f Front, number uint16) (Slot, bool) {
	return p.Slots.Find(f.hash(uint64(number)+1), func(s Slot) bool { return s.Front == f && s.Number == number })
}

// Backends returns the backends among which a pick chooses, in the order of their numbers.
func (p *Program) Backends(f Front, pick Pick) []Backend {
	list := make([]Backend, 0, pick.Count)
	for i := range pick.Count {
		if s, ok := p.Slot(f, pick.First+i); ok {
			list = append(list, s.Backend)
		}
	}
	return list
}

func within(ranges []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}
