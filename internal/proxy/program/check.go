// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// Check returns what makes the program one that no backend can render, or nil. It costs time in
// proportion to the whole program, and is for tests of whoever writes programs.
func (p *Program) Check() error {
	routes := map[Front]Route{}
	for r := range p.Routes.All() {
		if _, twice := routes[r.Front]; twice {
			return fmt.Errorf("two routes of front %s", r.Front)
		}
		routes[r.Front] = r
		if err := p.checkRoute(r); err != nil {
			return fmt.Errorf("front %s: %w", r.Front, err)
		}
	}
	numbers := map[Slot]bool{}
	for s := range p.Slots.All() {
		key := Slot{Front: s.Front, Number: s.Number}
		if numbers[key] {
			return fmt.Errorf("front %s: two slots %d", s.Front, s.Number)
		}
		numbers[key] = true
		if r, ok := routes[s.Front]; !ok || r.Sticky != s.Sticky {
			return fmt.Errorf("slot %d of %s: no route of the front with the affinity %ds", s.Number, s.Front, s.Sticky)
		}
		if !p.of(s.Addr) || s.Port == 0 {
			return fmt.Errorf("slot %d of %s: not a backend of the family: %s", s.Number, s.Front, s.Backend)
		}
	}
	return p.checkLists()
}

func (p *Program) checkRoute(r Route) error {
	switch r.Front.Protocol {
	case inet.TCP, inet.UDP, inet.SCTP:
	default:
		return fmt.Errorf("protocol %s has no ports", r.Front.Protocol)
	}
	if r.Front.Port == 0 || r.Front.Addr.IsValid() && !p.of(r.Front.Addr) {
		return fmt.Errorf("not a front of IPv%d", p.Family)
	}
	for _, pick := range []Pick{r.Inside, r.Outside} {
		if int(pick.First)+int(pick.Count) > MaxSlots {
			return fmt.Errorf("more than %d slots", MaxSlots)
		}
		if len(p.Backends(r.Front, pick)) != int(pick.Count) {
			return fmt.Errorf("slots are missing among %s", pick)
		}
	}
	known := func(a Admission) bool { return a.Name == r.Admission }
	if r.Admission != "" && !slices.ContainsFunc(p.Admissions, known) {
		return fmt.Errorf("there is no admission %s", r.Admission)
	}
	return nil
}

func (p *Program) checkLists() error {
	for _, set := range []inet.Elements{p.ClusterAddresses, p.Loops} {
		for e := range set.All() {
			if !p.of(e.Addr) || e != (inet.Element{Addr: e.Addr}) {
				return fmt.Errorf("not an address of IPv%d: %s", p.Family, e.Addr)
			}
		}
	}
	for _, a := range p.NodeAddresses {
		if !p.of(a) || a.IsLoopback() {
			return fmt.Errorf("not an address for node ports: %s", a)
		}
	}
	all := [][]netip.Prefix{p.ServiceRanges, p.ClusterPods, p.NodePods}
	for i, a := range p.Admissions {
		if i > 0 && p.Admissions[i-1].Name >= a.Name {
			return fmt.Errorf("admission %s is not in its place", a.Name)
		}
		all = append(all, a.Ranges)
	}
	for _, ranges := range all {
		for _, r := range ranges {
			if !p.of(r.Addr()) || r != r.Masked() {
				return fmt.Errorf("not a range of IPv%d: %s", p.Family, r)
			}
		}
	}
	return nil
}

// of reports whether the address is one of the program's family.
func (p *Program) of(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && inet.FamilyOf(a) == p.Family
}
