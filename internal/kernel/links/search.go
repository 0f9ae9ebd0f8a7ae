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

// wish says where the port of an address is looked for.
type wish struct {
	bridge int    // of these ports only; 0 for all
	other  string // where a route leads instead; then the address is not believed
}

// search looks for the ports of pods by the addresses that the ports have. A pod may
// have taken the addresses of its neighbours before anybody asked. So a port is taken for
// a pod's only if no other port can be, and no other pod can only be there; of several
// nobody gets the address, whichever is older.
type search struct {
	ends   map[int]*end
	now    map[int]device
	away   *away
	wishes map[netip.Addr]wish

	having  map[netip.Addr][]int // the ports that have an address, sorted
	pods    []Pod                // that have no port yet
	holders map[netip.Addr][]Pod
	found   map[netip.Addr]device
	why     map[netip.Addr]string // what is not clear
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
				more = true // that may make the port of another clear
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

// known reports whether the port of the pod is known to have the address. Of two the
// newer is meant: the older is of a sandbox that is going away.
func (s *search) known(pod Pod) bool {
	for _, index := range slices.Backward(s.having[pod.Addr]) {
		if s.ends[index].pod.is(pod) && s.fits(index, pod.Addr) == "" {
			s.found[pod.Addr] = s.now[index]
			return true
		}
	}
	return false
}

// free returns the ports that have the address and are nobody's.
func (s *search) free(a netip.Addr) []int {
	return slices.DeleteFunc(slices.Clone(s.having[a]), func(index int) bool { return !s.ends[index].pod.nobody() })
}

// fits says what speaks against the address being at the port.
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

// bind finds the pod's port, if it is clear.
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

// rival returns another pod that has no port yet and can be nowhere else than at
// this one; "" for none.
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

// twin returns another port than that of the pod that has the hardware address, or had
// it when it was first asked; "" for none. A pod may change its own to that of another
// before the API names it.
func (s *search) twin(index int, pod Pod, h inet.Hardware) string {
	for _, other := range slices.Sorted(maps.Keys(s.ends)) {
		if e := s.ends[other]; other != index && !e.pod.is(pod) && (e.hardware == h || e.seen == h) {
			return e.port
		}
	}
	return ""
}

// explain says why the address is at none of the ports that have it; "" if none has.
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

// assign gives a further address of a pod, which no port had when it was first asked,
// to the pod's port: the API says that it has it. Of several ports the one that has it
// now is meant.
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
