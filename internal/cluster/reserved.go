// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// KindPod is the Kind of diagnostics about pods.
const KindPod = "Pod"

// reserved holds the addresses that only pods on the host's network can have, and the other pods
// that claim one.
type reserved struct {
	by   map[any]map[netip.Addr]string // reason, by origin
	all  map[netip.Addr]string
	firm map[netip.Addr]string // without the addresses that only Node objects reserve
	// services counts the Services that have an address as their cluster address.
	services map[netip.Addr]int
	lost     map[Key]bool // pods that do not get an address that they claim
	said     []Diagnostic // diagnostics about lost, up to date if known
	// known is false after a change of anything that said is computed from.
	known bool
}

func newReserved() reserved {
	return reserved{by: map[any]map[netip.Addr]string{}, all: map[netip.Addr]string{}, firm: map[netip.Addr]string{},
		services: map[netip.Addr]int{}, lost: map[Key]bool{}}
}

// maxLost bounds how many pods that claim a reserved address are named.
const maxLost = 50

// why names the owner of a reserved address, in words that continue "is"; "" if the address is not
// reserved. An address that the runtime announced for the pod yields to no Node and no Service: they
// have other writers, and the runtime knows better.
func (r *reserved) why(ip netip.Addr, announced []netip.Addr) string {
	if why := neverPods(ip); why != "" {
		return why
	}
	if slices.Contains(announced, ip) {
		return r.firm[ip]
	}
	if why := r.all[ip]; why != "" || r.services[ip] == 0 {
		return why
	}
	return serviceAddress
}

// neverPods returns why an address is reserved on every node; "" if it is not.
func neverPods(ip netip.Addr) string {
	switch {
	case ip.IsUnspecified(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "no address of a host"
	case ip.IsLoopback():
		return "a loopback address"
	case ip.IsMulticast():
		return "a multicast address"
	case ip.IsLinkLocalUnicast():
		return "a link-local address, which another host on another link has too"
	}
	return ""
}

// Reserved returns the addresses that an origin reserves, sorted.
func (s *Store) Reserved(origin any) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.reserved.by[origin]), netip.Addr.Compare)
}

// SetReserved replaces the addresses that are reserved for one origin, a comparable value; those of
// other origins stay. A pod that is not on the host's network loses such an address, whatever the
// API says, and a diagnostic names it. The text names the owner of the address, in words that
// continue "is": "an address of this node".
func (tx *Tx) SetReserved(origin any, list map[netip.Addr]string) {
	s := tx.store
	r := &s.reserved
	if maps.Equal(r.by[origin], list) {
		return
	}
	if r.by[origin] = maps.Clone(list); len(list) == 0 {
		delete(r.by, origin)
	}
	before := r.all
	r.all, r.firm, r.known = union(r.by, nil), union(r.by, reservedByNodes{}), false
	touched := map[netip.Addr]bool{}
	for _, other := range [][2]map[netip.Addr]string{{before, r.all}, {r.all, before}} {
		for ip := range other[0] {
			if _, both := other[1][ip]; both {
				continue
			}
			if s.extras.doubt(ip); s.holders.others(ip, nil) {
				touched[ip] = true
			}
		}
	}
	tx.placeAgain(slices.Collect(maps.Keys(s.announced.byPod)), touched)
	s.settled = false
	tx.note(len(r.lost)+len(s.extras.refused) > 0) // the text of a diagnostic may have changed
}

// placeAgain places pods again: those of keys, and those that list one of the addresses, of which the
// reservation has changed.
func (tx *Tx) placeAgain(keys []Key, touched map[netip.Addr]bool) {
	s := tx.store
	if len(touched) > 0 {
		keys = append(keys, s.listing(touched)...)
		keys = slices.AppendSeq(keys, maps.Keys(s.announced.raw))
	}
	for _, k := range keys {
		if p := s.rawPod(k); p != nil {
			tx.note(s.place(p))
		}
	}
	tx.note(s.settleExtras())
}

// union joins the addresses that the origins reserve, except those of the origin without (nil: no
// exception). If one address has two texts the smaller one wins, so the order of origins does not
// matter.
func union(by map[any]map[netip.Addr]string, without any) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for origin, list := range by {
		if origin == without {
			continue
		}
		for ip, why := range list {
			if old, twice := all[ip]; !twice || why < old {
				all[ip] = why
			}
		}
	}
	return all
}

// unreserved returns the addresses that are not reserved for a pod with these announced addresses;
// the same slice if none is.
func (r *reserved) unreserved(ips, announced []netip.Addr) []netip.Addr {
	bad := func(ip netip.Addr) bool { return r.why(ip, announced) != "" }
	if !slices.ContainsFunc(ips, bad) {
		return ips
	}
	return slices.DeleteFunc(slices.Clone(ips), bad)
}

// noteClaims records whether a pod, as the API has it, claims an address that it does not get. It reports
// whether that is news: the effective pod may be the same as before, and its claim must be named.
func (s *Store) noteClaims(p *Pod) (news bool) {
	lost := p.Networked() && len(s.reserved.unreserved(p.IPs, s.announced.addrs(p))) < len(p.IPs)
	before := s.announced.raw[p.Key]
	news = lost != s.reserved.lost[p.Key] || lost && (before == nil || !slices.Equal(before.IPs, p.IPs))
	s.reserved.note(p, lost)
	s.noteRefused(p)
	return news
}

// note records whether a pod does not get an address that it claims.
func (r *reserved) note(p *Pod, lost bool) {
	if lost || r.lost[p.Key] {
		r.known = false
	}
	if lost {
		r.lost[p.Key] = true
	} else {
		delete(r.lost, p.Key)
	}
}

func (r *reserved) forget(k Key) {
	if r.lost[k] {
		delete(r.lost, k)
		r.known = false
	}
}

// reservedClaims returns the diagnostics about pods that claim reserved addresses.
func (s *Store) reservedClaims() []Diagnostic {
	r := &s.reserved
	if r.known {
		return r.said
	}
	r.said, r.known = nil, true
	keys := slices.SortedFunc(maps.Keys(r.lost), Key.Compare)
	for _, k := range keys[:min(maxLost, len(keys))] {
		p := s.rawPod(k)
		announced := s.announced.addrs(p)
		for i, ip := range p.IPs {
			if why := r.why(ip, announced); why != "" {
				if why == serviceAddress {
					why = "the address of " + s.serviceAt(ip)
				}
				r.said = append(r.said, reservedClaim(k, i, ip, why))
			}
		}
	}
	if more := len(keys) - maxLost; more > 0 {
		r.said = append(r.said, Diagnostic{Severity: Error, Kind: KindPod, Field: "status.podIPs",
			Message: fmt.Sprintf("%d more pods claim addresses that no pod can have", more)})
	}
	r.said = append(r.said, s.extraClaims()...)
	return r.said
}

func reservedClaim(k Key, i int, ip netip.Addr, why string) Diagnostic {
	return Diagnostic{Severity: Error, Kind: KindPod, Object: k, Field: fmt.Sprintf("status.podIPs[%d]", i),
		Message: fmt.Sprintf("%s is %s, so it is not taken for the pod's", ip, why),
		Cure: "find out who wrote this status, and delete the pod; if the pod really has the address, give the " +
			"pod network a range of its own"}
}
