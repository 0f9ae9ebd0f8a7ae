// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// ExtraAnnotation is the annotation with which a pod requests extra addresses.
const ExtraAnnotation = "podwall.io/extra-addresses"

// Allowance holds what the operator lets users do beyond the API: the ranges from which pods may have
// extra addresses, and audit mode. The zero value allows nothing.
type Allowance struct {
	Prefixes []netip.Prefix
	Hardware []inet.HardwareRange
	// Audit lets the author of a policy have it audited instead of enforced.
	Audit bool
	// AuditNamespaces lets whoever may change a namespace have its policies audited.
	AuditNamespaces bool
}

func (a Allowance) none() bool { return len(a.Prefixes)+len(a.Hardware) == 0 }

func (a Allowance) hasAddr(ip netip.Addr) bool {
	return slices.ContainsFunc(a.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (a Allowance) hasHardware(h inet.Hardware) bool {
	return slices.ContainsFunc(a.Hardware, func(r inet.HardwareRange) bool { return r.Contains(h) })
}

// extras holds the extra addresses that pods request, as far as they are allowed.
type extras struct {
	allowed  Allowance
	hardware map[string][]inet.Hardware // by namespace/name; only of pods that have some
	// claims lists the pods that request an address. It holds only pods that have an address of
	// their own, and only addresses that are allowed. of holds the same by pod.
	claims map[netip.Addr]*claimants
	of     map[Key]claim
	// dirty are pods whose result may have changed.
	dirty   map[Key]bool
	refused map[Key]bool // pods that do not get all that they request
}

// claimants are the pods that request one address.
type claimants struct {
	byNode     map[string]map[Key]bool
	namespaces map[string]int
}

// claim is the request of one pod.
type claim struct {
	node  string
	addrs []netip.Addr
}

func newExtras() extras {
	return extras{hardware: map[string][]inet.Hardware{}, claims: map[netip.Addr]*claimants{}, of: map[Key]claim{},
		dirty: map[Key]bool{}, refused: map[Key]bool{}}
}

// Allow sets what users may do beyond the API. It must be called before the
// first object is stored.
func (s *Store) Allow(a Allowance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extras.allowed = a
}

// ExtraHardware returns the extra hardware addresses that a pod may have; pod is namespace/name.
func (s *Store) ExtraHardware(pod string) []inet.Hardware {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.extras.hardware[pod]
}

// set records the request of a pod whose own addresses are own; a nil pod has none.
func (x *extras) set(k Key, p *Pod, own []netip.Addr) {
	e := p.Extra()
	if e != nil && (p.HostNetwork || p.Finished || len(own) == 0) {
		e = nil
	}
	var now claim
	if e != nil {
		now = claim{p.Node, slices.DeleteFunc(slices.Clone(e.Addrs),
			func(ip netip.Addr) bool { return !x.allowed.hasAddr(ip) })}
	}
	if old := x.of[k]; old.node != now.node || !slices.Equal(old.addrs, now.addrs) {
		for _, ip := range old.addrs {
			x.count(ip, old.node, k, false)
		}
		for _, ip := range now.addrs {
			x.count(ip, now.node, k, true)
		}
		if x.of[k] = now; len(now.addrs) == 0 {
			delete(x.of, k)
		}
	}
	x.setHardware(k, e)
}

func (x *extras) setHardware(k Key, e *Extra) {
	var list []inet.Hardware
	if e != nil {
		list = slices.DeleteFunc(slices.Clone(e.Hardware),
			func(h inet.Hardware) bool { return !x.allowed.hasHardware(h) })
	}
	switch {
	case len(list) > 0:
		x.hardware[k.String()] = list
	case len(x.hardware) > 0:
		delete(x.hardware, k.String())
	}
}

// count adds a pod to the claimants of an address, or removes it. The result for the other
// claimants changes only when their number passes from one to two or back.
func (x *extras) count(ip netip.Addr, node string, k Key, add bool) {
	c := x.claims[ip]
	if c == nil {
		c = &claimants{byNode: map[string]map[Key]bool{}, namespaces: map[string]int{}}
		x.claims[ip] = c
	}
	there, namespaces := len(c.byNode[node]), len(c.namespaces)
	if add {
		if there == 0 {
			c.byNode[node] = map[Key]bool{}
		}
		c.byNode[node][k] = true
		c.namespaces[k.Namespace]++
	} else {
		delete(c.byNode[node], k)
		if c.namespaces[k.Namespace]--; c.namespaces[k.Namespace] == 0 {
			delete(c.namespaces, k.Namespace)
		}
	}
	switch {
	case (namespaces > 1) != (len(c.namespaces) > 1):
		x.doubt(ip)
	case (there > 1) != (len(c.byNode[node]) > 1):
		maps.Copy(x.dirty, c.byNode[node])
	}
	if len(c.byNode[node]) == 0 {
		delete(c.byNode, node)
	}
	if len(c.byNode) == 0 {
		delete(x.claims, ip)
	}
}

// doubt marks all claimants of the addresses as dirty.
func (x *extras) doubt(ips ...netip.Addr) {
	if len(x.claims) == 0 {
		return
	}
	for _, ip := range ips {
		if c := x.claims[ip]; c != nil {
			for _, pods := range c.byNode {
				maps.Copy(x.dirty, pods)
			}
		}
	}
}

func (x *extras) clear() {
	clear(x.hardware)
	clear(x.claims)
	clear(x.of)
	clear(x.dirty)
	clear(x.refused)
}

// settleExtras places the dirty pods again.
func (s *Store) settleExtras() (changed bool) {
	for len(s.extras.dirty) > 0 {
		dirty := s.extras.dirty
		s.extras.dirty = map[Key]bool{}
		for k := range dirty {
			if p := s.rawPod(k); p != nil {
				changed = s.place(p) || changed
			}
		}
		s.settled = false
	}
	return changed
}

// withExtra returns the addresses of a pod and those that its annotation adds. A pod without an
// address of its own gets none.
func (s *Store) withExtra(ips []netip.Addr, p *Pod) []netip.Addr {
	if len(ips) == 0 {
		return ips
	}
	all := slices.Clone(ips)
	for _, ip := range p.Extra().Addrs {
		if s.extraRefused(ip, p) == "" && !slices.Contains(all, ip) {
			all = append(all, ip)
		}
	}
	return all
}

// extraRefused says why a pod does not get an extra address that it requests, in words that
// continue "it is"; "" if it gets it. Pods of one namespace on different nodes may share an
// address, which moves between them. In all other cases of several claimants none gets it.
func (s *Store) extraRefused(ip netip.Addr, p *Pod) string {
	if !s.extras.allowed.hasAddr(ip) {
		return "in no range of --extra-addresses"
	}
	if why := s.reserved.why(ip, nil); why != "" {
		return why
	}
	if o := s.announced.owners[ip]; s.holders.others(ip, p) || o != nil && !o.matches(p) {
		return "the address of another pod"
	}
	c := s.extras.claims[ip]
	switch {
	case c == nil:
		return ""
	case len(c.namespaces) > 1:
		return "claimed by a pod of another namespace too"
	case len(c.byNode[p.Node]) > 1:
		return "claimed by another pod of the same node too"
	}
	return ""
}

// noteRefused records whether the pod does not get all that it requests.
func (s *Store) noteRefused(p *Pod) {
	refused := len(s.refused(p)) > 0
	if refused || s.extras.refused[p.Key] {
		s.reserved.known = false
	}
	if refused {
		s.extras.refused[p.Key] = true
	} else {
		delete(s.extras.refused, p.Key)
	}
}

// refused describes the parts of a pod's annotation that have no effect.
func (s *Store) refused(p *Pod) (list []string) {
	e := p.Extra()
	if e == nil || p.HostNetwork || p.Finished {
		return nil
	}
	if s.extras.allowed.none() {
		return []string{"the annotation is not read: the agents run without --extra-addresses"}
	}
	list = slices.Clone(e.Unread)
	for _, ip := range e.Addrs {
		if why := s.extraRefused(ip, p); why != "" {
			list = append(list, notTaken(ip, why))
		}
	}
	for _, h := range e.Hardware {
		if !s.extras.allowed.hasHardware(h) {
			list = append(list, notTaken(h, "in no range of --extra-addresses"))
		}
	}
	return list
}

// extraClaims returns the diagnostics about annotations that have no effect.
func (s *Store) extraClaims() (list []Diagnostic) {
	keys := slices.SortedFunc(maps.Keys(s.extras.refused), Key.Compare)
	for _, k := range keys[:min(maxLost, len(keys))] {
		for _, message := range s.refused(s.rawPod(k)) {
			list = append(list, extraClaim(k, message))
		}
	}
	if more := len(keys) - maxLost; more > 0 {
		list = append(list, extraClaim(Key{}, fmt.Sprintf("%d more pods request extra addresses that they do not get",
			more)))
	}
	return list
}

func notTaken(what fmt.Stringer, why string) string {
	return fmt.Sprintf("%s is not counted as this pod's: it is %s", what, why)
}

func extraClaim(k Key, message string) Diagnostic {
	return Diagnostic{Severity: Error, Kind: KindPod, Object: k, Field: "metadata.annotations[" + ExtraAnnotation + "]",
		Message: message,
		Cure:    "correct the annotation, or have the agents' --extra-addresses allow it; see docs/extra-addresses.md"}
}
