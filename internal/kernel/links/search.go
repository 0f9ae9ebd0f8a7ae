// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
)

// wish restricts the search for the port of an address.
type wish struct {
	bridge int    // search only ports of this bridge; 0 for all
	other  string // a route that leads elsewhere; then the address is rejected
}

// search finds the ports of pods by the addresses that the ports have. A pod may have taken its neighbours'
// addresses before they were first read. So a port is bound to a pod only if no other port is possible for
// the pod and no other pod needs this port. If several ports have an address, none gets it, regardless of
// age.
type search struct {
	ends   map[int]*end
	now    map[int]device
	away   *away
	wishes map[netip.Addr]wish

	having  map[netip.Addr][]int // the ports that have an address, sorted
	pods    []Pod                // pods without a port
	holders map[netip.Addr][]Pod
	found   map[netip.Addr]device
	why     map[netip.Addr]string // why an address has no port
}

func (s *search) run(pods []Pod) {
	s.having = map[netip.Addr][]int{}
	for _, index := range slices.Sorted(maps.Keys(s.ends)) {
		for _, a := range s.ends[index].addrs {
			s.having[a] = append(s.having[a], index)
		}
	}
	s.holders = map[netip.Addr][]Pod{}
	for _, pod := range pods {
		if _, wanted := s.wishes[pod.Addr]; wanted && !s.known(pod) {
			s.pods = append(s.pods, pod)
			s.holders[pod.Addr] = append(s.holders[pod.Addr], pod)
		}
	}
	for more := true; more; {
		more = false
		for _, pod := range s.pods {
			if _, done := s.found[pod.Addr]; !done && s.bind(pod) {
				more = true // it may leave only one port for another pod
			}
		}
	}
	for _, pod := range s.pods {
		if _, done := s.found[pod.Addr]; done {
			continue
		}
		if why := s.explain(pod); why != "" {
			s.why[pod.Addr] = why
		} else {
			s.assign(pod)
		}
	}
}

// known reports whether a port bound to the pod has the address. Of two ports the newer counts: the older
// belongs to a sandbox that is being deleted.
func (s *search) known(pod Pod) bool {
	for _, index := range slices.Backward(s.having[pod.Addr]) {
		if s.ends[index].pod.is(pod) && s.fits(index, pod.Addr) == "" {
			s.found[pod.Addr] = s.now[index]
			return true
		}
	}
	return false
}

// free returns the ports that have the address and no pod.
func (s *search) free(a netip.Addr) []int {
	return slices.DeleteFunc(slices.Clone(s.having[a]), func(index int) bool { return !s.ends[index].pod.unknown() })
}

// fits returns why the address cannot be at the port, or "".
func (s *search) fits(index int, a netip.Addr) string {
	w := s.wishes[a]
	switch {
	case w.other != "":
		return fmt.Sprintf("the port %s has it, and %s leads elsewhere", s.now[index].name, w.other)
	case w.bridge != 0 && w.bridge != s.now[index].master:
		return fmt.Sprintf("the port %s of another bridge has it", s.now[index].name)
	}
	return ""
}

// bind binds the pod to its port, if that is unambiguous.
func (s *search) bind(pod Pod) bool {
	at := s.free(pod.Addr)
	if len(at) != 1 || s.fits(at[0], pod.Addr) != "" || s.rival(at[0], pod) != "" {
		return false
	}
	e := s.ends[at[0]]
	hardware, err := s.away.hardware(s.now[at[0]])
	if err != nil || s.twin(at[0], pod, hardware) != "" {
		return false
	}
	e.pod, e.hardware = who{pod.Name, pod.ID}, hardware
	s.found[pod.Addr] = s.now[at[0]]
	return true
}

// rival returns another pod without a port that fits only this port; "" for none.
func (s *search) rival(index int, pod Pod) string {
	for _, a := range s.ends[index].addrs {
		for _, other := range s.holders[a] {
			_, done := s.found[a]
			if other.Name != pod.Name && !done && len(s.free(a)) == 1 {
				return other.Name
			}
		}
	}
	return ""
}

// twin returns another port, not the pod's, that has the hardware address or had it when it was first read;
// "" for none. A pod may take the hardware address of another pod before the API names it.
func (s *search) twin(index int, pod Pod, h inet.Hardware) string {
	for _, other := range slices.Sorted(maps.Keys(s.ends)) {
		if e := s.ends[other]; other != index && !e.pod.is(pod) && (e.hardware == h || e.seen == h) {
			return e.port
		}
	}
	return ""
}

// explain returns why the address is at none of the ports that have it; "" if no port has it.
func (s *search) explain(pod Pod) string {
	all := s.having[pod.Addr]
	at := s.free(pod.Addr)
	switch {
	case len(all) == 0:
		return ""
	case len(at) > 1:
		names := make([]string, len(at))
		for i, index := range at {
			names[i] = s.now[index].name
		}
		return "the ports " + strings.Join(names, ", ") + " have it"
	case len(at) == 0:
		e := s.ends[all[0]]
		if e.pod.is(pod) {
			return s.fits(all[0], pod.Addr)
		}
		return fmt.Sprintf("the port %s has it, which is that of %s", e.port, e.pod.name)
	}
	name := s.now[at[0]].name
	if why := s.fits(at[0], pod.Addr); why != "" {
		return why
	}
	if rival := s.rival(at[0], pod); rival != "" {
		return fmt.Sprintf("the port %s has it, and that of %s", name, rival)
	}
	if h, err := s.away.hardware(s.now[at[0]]); err == nil && s.twin(at[0], pod, h) != "" {
		return fmt.Sprintf("the ports %s, %s have the same hardware address", name, s.twin(at[0], pod, h))
	}
	return ""
}

// assign gives an additional address of a pod, which no port had when first read, to the pod's port,
// because the API lists it. Of several ports the one that currently has the address counts.
func (s *search) assign(pod Pod) {
	var own []int
	for index, e := range s.ends {
		if e.pod.is(pod) && s.fits(index, pod.Addr) == "" {
			own = append(own, index)
		}
	}
	slices.Sort(own)
	for _, index := range slices.Backward(own) {
		if len(own) == 1 || s.away.has(s.now[index], pod.Addr) {
			s.found[pod.Addr] = s.now[index]
			return
		}
	}
}
