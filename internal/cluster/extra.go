// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// ExtraAnnotation is the annotation by which a pod asks for further addresses.
const ExtraAnnotation = "podwall.io/extra-addresses"

// Allowance are the ranges from which pods may have further addresses. The zero
// value allows none.
type Allowance struct {
	Prefixes []netip.Prefix
	Hardware []inet.HardwareRange
}

func (a Allowance) none() bool { return len(a.Prefixes)+len(a.Hardware) == 0 }

func (a Allowance) hasAddr(ip netip.Addr) bool {
	return slices.ContainsFunc(a.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (a Allowance) hasHardware(h inet.Hardware) bool {
	return slices.ContainsFunc(a.Hardware, func(r inet.HardwareRange) bool { return r.Contains(h) })
}

// extras are the further addresses that pods ask for, as far as they are allowed.
type extras struct {
	allowed  Allowance
	hardware map[string][]inet.Hardware // by namespace/name; only of pods that have some
	claims   map[netip.Addr]map[Key]bool
	pods     map[Key]*Pod // that claim an address, as the API has them
}

func newExtras() extras {
	return extras{hardware: map[string][]inet.Hardware{}, claims: map[netip.Addr]map[Key]bool{}, pods: map[Key]*Pod{}}
}

// Allow says from which ranges pods may have further addresses. It is to be called
// before the first object is stored.
func (s *Store) Allow(a Allowance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extras.allowed = a
}

// ExtraHardware returns the further hardware addresses that a pod may have; pod is
// namespace/name.
func (s *Store) ExtraHardware(pod string) []inet.Hardware {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.extras.hardware[pod]
}

// set notes what a pod, as the API has it, asks for; nil is no pod.
func (x *extras) set(k Key, p *Pod) {
	if old := x.pods[k]; old != nil {
		for _, ip := range old.Extra().Addrs {
			if delete(x.claims[ip], k); len(x.claims[ip]) == 0 {
				delete(x.claims, ip)
			}
		}
		delete(x.pods, k)
	}
	delete(x.hardware, k.String())
	e := p.Extra()
	if e == nil || p.HostNetwork || p.Finished {
		return
	}
	for _, ip := range e.Addrs {
		if x.claims[ip] == nil {
			x.claims[ip] = map[Key]bool{}
		}
		x.claims[ip][k], x.pods[k] = true, p
	}
	for _, h := range e.Hardware {
		if x.allowed.hasHardware(h) {
			x.hardware[k.String()] = append(x.hardware[k.String()], h)
		}
	}
}

func (x *extras) clear() {
	clear(x.hardware)
	clear(x.claims)
	clear(x.pods)
}

// touched returns the other pods that claim an address which the pod has or claims.
func (x *extras) touched(k Key, pods ...*Pod) (list []Key) {
	if len(x.claims) == 0 {
		return nil
	}
	for _, p := range pods {
		if p == nil {
			continue
		}
		ips := p.IPs
		if e := p.Extra(); e != nil {
			ips = slices.Concat(ips, e.Addrs)
		}
		for _, ip := range ips {
			list = slices.AppendSeq(list, maps.Keys(x.claims[ip]))
		}
	}
	return slices.DeleteFunc(list, func(other Key) bool { return other == k })
}

// withExtra returns the addresses of a pod and those that its annotation adds. A pod
// without an address of its own gets none.
func (s *Store) withExtra(ips []netip.Addr, p *Pod) []netip.Addr {
	e := p.Extra()
	if e == nil || len(ips) == 0 {
		return ips
	}
	all := slices.Clone(ips)
	for _, ip := range e.Addrs {
		if s.extraRefused(ip, p) == "" && !slices.Contains(all, ip) {
			all = append(all, ip)
		}
	}
	return s.kept(all, p)
}

// extraRefused says why a pod does not get a further address that it asks for, in
// words that continue "is"; "" if it does. Pods of several nodes may share one, which
// moves from one to the other. Of two pods of one node neither gets it.
func (s *Store) extraRefused(ip netip.Addr, p *Pod) string {
	if !s.extras.allowed.hasAddr(ip) {
		return "in no range of --extra-addresses"
	}
	if why := s.reserved.why(ip, nil); why != "" {
		return why
	}
	if s.holders.others(ip, p) {
		return "the address of another pod"
	}
	for k := range s.extras.claims[ip] {
		if other := s.extras.pods[k]; k != p.Key && other.Node == p.Node {
			return "claimed by another pod of the same node"
		}
	}
	return ""
}

// refused says what of a pod's annotation does not count.
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

func notTaken(what fmt.Stringer, why string) string {
	return fmt.Sprintf("%s is %s, so it is not taken for the pod's", what, why)
}

func extraClaim(k Key, message string) Diagnostic {
	return Diagnostic{Severity: Error, Kind: KindPod, Object: k, Field: "metadata.annotations[" + ExtraAnnotation + "]",
		Message: message,
		Cure:    "correct the annotation, or have the agents' --extra-addresses allow it; see docs/extra-addresses.md"}
}
