// SPDX-License-Identifier: Apache-2.0

// Package ipvs says what IPVS has to hold for a program of the service proxy, and what the tables of
// nftables do beside it: a Planner turns one program after another into both. Diff says how the virtual
// services of the kernel become those.
//
// Where all clients of a front that have backends have the same ones, IPVS chooses among them. Where clients
// inside and outside have different ones, IPVS serves those outside, and the tables those inside: a virtual
// service does not know where a client is. Everything else, who is refused and whose source is replaced, is
// in the tables, which a packet meets first.
//
// It is pure. It does not know Kubernetes.
package ipvs

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// The kernel has no field for who owns a virtual service, but keeps the bits of its flags that it does not
// know, and shows them. Ours have these in the upper half: PW in ASCII.
const (
	own     ipvs.Flags = 0x50570000
	ownMask ipvs.Flags = 0xffff0000
)

// Own reports whether a virtual service is one that this project made.
func Own(s ipvs.Service) bool { return s.Mark == 0 && s.Flags&ownMask == own }

// Virtual is a virtual service that the kernel shall hold.
type Virtual struct {
	ipvs.Service
	Front    program.Front
	Backends []ipvs.Backend // sorted; one at least
	// Restricted says that the tables let only some clients pass.
	Restricted bool
}

// Plan is what both parts of the kernel shall hold for a program.
type Plan struct {
	// Tables is the program of the tables, which leaves to IPVS what is Virtual's.
	Tables *program.Program
	// Virtual must not be changed; the planner changes it with its next plan.
	Virtual map[ipvs.ID]Virtual
	// Changed are the IDs at which the plan differs from the one before, sorted.
	Changed []ipvs.ID

	addrs map[netip.Addr]int
}

// Local reports whether the address must be one of the node for IPVS to see packets to it: that of a virtual
// service that is not a node port.
func (p Plan) Local(a netip.Addr) bool { return p.addrs[a] > 0 }

// Front returns the front of a program whose virtual service an ID is, or was.
func Front(p *program.Program, id ipvs.ID) program.Front {
	f := program.Front{Addr: id.Addr, Protocol: id.Protocol, Port: id.Port}
	if slices.Contains(p.NodeAddresses, id.Addr) {
		f.Addr = netip.Addr{}
	}
	return f
}

// Planner plans one program of a family after another. A change costs what changed. The zero value is ready.
type Planner struct {
	last    program.Program
	lacks   string // what was lacking for the last plan
	tables  program.Program
	virtual map[ipvs.ID]Virtual
	fronts  map[program.Front][]ipvs.ID
	addrs   map[netip.Addr]int // virtual services of each, without node ports
}

// Lacks is what the kernel does not have, or does not take.
type Lacks struct {
	// Schedulers are names. Fronts that ask for them get the default one.
	Schedulers []string
	// Virtual are virtual services. The tables choose for their fronts, at random.
	Virtual map[ipvs.ID]bool
}

// key is the same for equal values.
func (l Lacks) key() string {
	key := strings.Join(slices.Sorted(slices.Values(l.Schedulers)), " ")
	for _, id := range slices.SortedFunc(maps.Keys(l.Virtual), ipvs.ID.Compare) {
		key += " " + id.String()
	}
	return key
}

// Of returns the plan of a program from scratch.
func Of(p *program.Program) Plan { return new(Planner).Next(p, Lacks{}) }

// Next returns the plan of a program, on a kernel that lacks something.
func (pl *Planner) Next(p *program.Program, lacks Lacks) Plan {
	key := lacks.key()
	if pl.fronts != nil && pl.last.Family == p.Family && pl.lacks == key {
		return pl.next(p, lacks)
	}
	before := pl.virtual
	*pl = Planner{last: program.Program{Family: p.Family}, lacks: key, virtual: map[ipvs.ID]Virtual{},
		fronts: map[program.Front][]ipvs.ID{}, addrs: map[netip.Addr]int{}}
	plan := pl.next(p, lacks)
	plan.Changed = differing(before, plan.Virtual)
	return plan
}

// differing returns the IDs at which two plans differ, sorted.
func differing(a, b map[ipvs.ID]Virtual) (list []ipvs.ID) {
	for id, v := range a {
		if w, both := b[id]; !both || v.Service != w.Service || v.Front != w.Front || v.Restricted != w.Restricted ||
			!slices.Equal(v.Backends, w.Backends) {
			list = append(list, id)
		}
	}
	for id := range b {
		if _, both := a[id]; !both {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, ipvs.ID.Compare)
	return list
}

// next returns the plan of a program for a kernel that lacks the same as for the last one.
func (pl *Planner) next(p *program.Program, lacks Lacks) Plan {
	changed := map[ipvs.ID]bool{}
	for f := range pl.touched(p) {
		for _, id := range pl.fronts[f] {
			changed[id] = true
			delete(pl.virtual, id)
			pl.count(f, -1)
		}
		for _, id := range pl.front(p, f, lacks) {
			changed[id] = true
		}
	}
	tables := *p
	tables.Routes, tables.Slots = pl.tables.Routes, pl.tables.Slots
	pl.last, pl.tables = *p, tables
	return Plan{&tables, pl.virtual, slices.SortedFunc(maps.Keys(changed), ipvs.ID.Compare), pl.addrs}
}

// count counts the virtual services at the address of a front.
func (pl *Planner) count(f program.Front, by int) {
	if !f.Addr.IsValid() {
		return
	}
	if pl.addrs[f.Addr] += by; pl.addrs[f.Addr] == 0 {
		delete(pl.addrs, f.Addr)
	}
}

// touched returns the fronts of which anything differs from the last program.
func (pl *Planner) touched(p *program.Program) map[program.Front]bool {
	fronts := map[program.Front]bool{}
	routes, without := p.Routes.Diff(pl.last.Routes)
	for _, r := range slices.Concat(routes, without) {
		fronts[r.Front] = true
	}
	slots, gone := p.Slots.Diff(pl.last.Slots)
	for _, s := range slices.Concat(slots, gone) {
		fronts[s.Front] = true
	}
	if !slices.Equal(p.NodeAddresses, pl.last.NodeAddresses) {
		for r := range p.Routes.All() {
			if !r.Front.Addr.IsValid() {
				fronts[r.Front] = true
			}
		}
	}
	return fronts
}

// front plans a front anew, and returns the IDs of its virtual services.
func (pl *Planner) front(p *program.Program, f program.Front, lacks Lacks) []ipvs.ID {
	pl.forget(f)
	r, ok := p.Route(f)
	if !ok {
		return nil
	}
	at := ids(p, f)
	rest, pick := share(r)
	if slices.ContainsFunc(at, func(id ipvs.ID) bool { return lacks.Virtual[id] }) {
		rest, pick = r, program.Pick{}
	}
	pl.tables.Routes = pl.tables.Routes.With(rest)
	for _, part := range []program.Pick{rest.Inside, rest.Outside} {
		for n := range part.Count {
			if s, ok := p.Slot(f, part.First+n); ok {
				pl.tables.Slots = pl.tables.Slots.With(s)
			}
		}
	}
	if pick.Count == 0 {
		return nil
	}
	v := Virtual{Front: f, Service: service(r, lacks.Schedulers), Backends: backends(p, f, pick),
		Restricted: r.Admission != ""}
	for _, id := range at {
		v.ID = id
		pl.virtual[id] = v
		pl.fronts[f] = append(pl.fronts[f], id)
		pl.count(f, 1)
	}
	return pl.fronts[f]
}

// forget takes a front out of what was planned for it.
func (pl *Planner) forget(f program.Front) {
	delete(pl.fronts, f)
	r, ok := pl.tables.Route(f)
	if !ok {
		return
	}
	for _, part := range []program.Pick{r.Inside, r.Outside} {
		for n := range part.Count {
			if s, ok := pl.tables.Slot(f, part.First+n); ok {
				pl.tables.Slots = pl.tables.Slots.Without(s)
			}
		}
	}
	pl.tables.Routes = pl.tables.Routes.Without(r)
}

// share returns what the tables do of a route, and the choice that is left to IPVS.
func share(r program.Route) (tables program.Route, left program.Pick) {
	leave := func(p program.Pick) program.Pick {
		return program.Pick{Otherwise: program.Leave, Masquerade: p.Masquerade}
	}
	in, out := r.Inside, r.Outside
	same := in.First == out.First && in.Count == out.Count
	switch {
	case in.Count == 0 && out.Count == 0:
	case out.Count == 0:
		r.Inside, left = leave(in), in
	default:
		r.Outside, left = leave(out), out
		if same {
			r.Inside = leave(in)
		}
	}
	return r, left
}

// service returns the virtual service of a route without its ID.
func service(r program.Route, missing []string) ipvs.Service {
	s := ipvs.Service{Scheduler: r.Schedule.Scheduler.String(), Flags: own}
	if slices.Contains(missing, s.Scheduler) {
		s.Scheduler = program.RoundRobin.String()
	} else {
		for _, o := range []struct {
			asked program.Options
			flag  ipvs.Flags
		}{{program.Fallback, ipvs.Option1}, {program.ByPort, ipvs.Option2}, {program.Third, ipvs.Option3}} {
			if r.Schedule.Options&o.asked != 0 {
				s.Flags |= o.flag
			}
		}
		if h := r.Schedule.Scheduler; h == program.SourceHash || h == program.Maglev {
			s.Flags |= ipvs.Option1 // else clients are refused that belong to a destination that drains
		}
	}
	if r.Sticky > 0 {
		s.Flags |= ipvs.Persistent
		s.Timeout = uint32(r.Sticky)
	}
	return s
}

// backends returns those of a choice, sorted.
func backends(p *program.Program, f program.Front, pick program.Pick) (list []ipvs.Backend) {
	for _, b := range p.Backends(f, pick) {
		list = append(list, ipvs.Backend(b))
	}
	slices.SortFunc(list, ipvs.Backend.Compare)
	return slices.Compact(list)
}

// ids returns the IDs of a front: a node port has one at each address of the node that takes node ports.
func ids(p *program.Program, f program.Front) (list []ipvs.ID) {
	if f.Addr.IsValid() {
		return []ipvs.ID{{Addr: f.Addr, Protocol: f.Protocol, Port: f.Port}}
	}
	for _, a := range p.NodeAddresses {
		if inet.FamilyOf(a) == p.Family {
			list = append(list, ipvs.ID{Addr: a, Protocol: f.Protocol, Port: f.Port})
		}
	}
	return list
}
