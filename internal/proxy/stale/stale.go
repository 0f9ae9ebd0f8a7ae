// SPDX-License-Identifier: Apache-2.0

// Package stale says which entries of the kernel's connection table must be deleted after a change of the
// service proxy's program. A UDP client with a fixed source port belongs to one connection as long as it
// sends, and the kernel decides where a connection goes once: without the deletion it would go on to a
// backend that is gone, past a Service that came after it, or where IPVS sent it that serves no more.
//
// It is a function of two programs and of the entry. Established TCP and SCTP entries are never stale: their
// ends notice by themselves. A TCP connection that was begun while no rule of the proxy stood is: its first
// packet would be sent again and again past the Service. The table is never flushed.
package stale

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// Serving reports whether a backend that a front's clients no longer choose still serves those that it has,
// as a terminating pod may. Nil means that none does.
type Serving func(program.Front, program.Backend) bool

// Judge knows the fronts of which entries may be stale after a change.
type Judge struct {
	// IPVS says that IPVS chooses backends. If it does not, nothing translates what it has chosen.
	IPVS bool

	now     *program.Program
	serving Serving
	fronts  map[program.Front]bool
	all     bool
	left    Left
}

// Left are backends that a front has no more and that were left its clients because they still served. What they
// do later is no change of a program.
type Left map[Leaving]bool

// Leaving is a backend that no longer takes new clients of a front.
type Leaving struct {
	Front   program.Front
	Backend program.Backend
}

// After returns the judge for the step from one program to the next. The first program of a process has no
// predecessor: old is nil then, and entries of every front are compared. left are the backends of the judge before.
func After(old, now *program.Program, serving Serving, left Left) *Judge {
	j := &Judge{now: now, serving: serving, fronts: map[program.Front]bool{}, all: old == nil, left: Left{}}
	for l := range left {
		switch {
		case !j.still(l.Front, l.Backend): // its clients must go to others now
			j.note(l.Front, true)
		default:
			j.left[l] = true
		}
	}
	if j.all {
		return j
	}
	came, went := now.Routes.Diff(old.Routes)
	for _, r := range slices.Concat(came, went) {
		_, before := old.Route(r.Front)
		_, after := now.Route(r.Front)
		j.note(r.Front, before != after)
	}
	more, less := now.Slots.Diff(old.Slots)
	for _, s := range less {
		j.note(s.Front, true)
	}
	for _, s := range more {
		_, before := old.Slot(s.Front, 0)
		j.note(s.Front, !before) // the first backends: clients may have come before them
	}
	return j
}

// Add has the judge look at the fronts of an earlier one, too, by which entries were not judged. An entry is
// judged by what its front leads to now, so what the front led to in between does not matter.
func (j *Judge) Add(earlier *Judge) {
	if earlier != nil {
		maps.Copy(j.fronts, earlier.fronts)
		j.all = j.all || earlier.all
	}
}

// Earlier has the judge look at the entries of fronts that an earlier process had, and that went while none ran. Where
// no Service is assigned an address, nothing else tells them from connections that other programs translate.
func (j *Judge) Earlier(fronts iter.Seq[program.Front]) {
	for f := range fronts {
		_, ours := j.now.Route(f)
		j.note(f, !ours)
	}
}

// LookAtAll has the judge look at the entries of every front, as after the first program of a process: some began under
// other rules, or under none.
func (j *Judge) LookAtAll() { j.all = true }

// MayWait reports whether only clients of single fronts are to be looked for: that may wait for the next change.
// After the first program of a process, what an earlier one left must not.
func (j *Judge) MayWait() bool { return !j.all && len(j.fronts) > 0 }

// note adds a UDP front.
func (j *Judge) note(f program.Front, changed bool) {
	if changed && f.Protocol == inet.UDP {
		j.fronts[f] = true
	}
}

// Needed returns of which protocols entries may be stale; none if the connection table need not be read.
func (j *Judge) Needed() []inet.Protocol {
	switch {
	case j.all:
		return []inet.Protocol{inet.UDP, inet.TCP}
	case len(j.fronts) > 0:
		return []inet.Protocol{inet.UDP}
	}
	return nil
}

// Stale reports whether an entry must be deleted.
func (j *Judge) Stale(e inet.Connection) bool {
	if !e.Orig.Dst.IsValid() || inet.FamilyOf(e.Orig.Dst) != j.now.Family {
		return false
	}
	if e.Protocol != inet.UDP {
		return j.all && e.Protocol == inet.TCP && e.Opening && j.passed(e)
	}
	f, to := j.front(e), program.Backend{Addr: e.Reply.Src, Port: e.Reply.SrcPort}
	translated := to != program.Backend{Addr: e.Orig.Dst, Port: e.Orig.DstPort}
	if _, ours := j.now.Route(f); !ours {
		return translated && (j.fronts[f] || j.all && j.unassigned(e.Orig.Dst))
	}
	if !j.all && !j.fronts[f] {
		return false
	}
	return e.Balanced && !j.IPVS || !j.serves(f, to) // and what is not translated leads to the front itself
}

// front returns the front to which an entry's first packet was sent, which need not exist.
func (j *Judge) front(e inet.Connection) program.Front {
	f := program.Front{Addr: e.Orig.Dst, Protocol: e.Protocol, Port: e.Orig.DstPort}
	if _, ours := j.now.Route(f); !ours && slices.Contains(j.now.NodeAddresses, f.Addr) {
		f.Addr = netip.Addr{}
	}
	return f
}

// passed reports whether an entry leads to a front without translation.
func (j *Judge) passed(e inet.Connection) bool {
	_, ours := j.now.Route(j.front(e))
	return ours && e.Reply.Src == e.Orig.Dst && e.Reply.SrcPort == e.Orig.DstPort
}

// unassigned reports whether an address is one that Services are assigned from. What is translated there
// without a front was the Service's of an earlier process.
func (j *Judge) unassigned(a netip.Addr) bool {
	return slices.ContainsFunc(j.now.ServiceRanges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// serves reports whether a front may keep clients of a backend.
func (j *Judge) serves(f program.Front, to program.Backend) bool {
	for n := uint16(0); ; n++ { // slots are numbered without a gap
		s, ok := j.now.Slot(f, n)
		if !ok {
			if j.still(f, to) {
				j.left[Leaving{f, to}] = true
				return true
			}
			return false
		}
		if s.Backend == to {
			return true
		}
	}
}

// still reports whether a backend that a front has no more serves.
func (j *Judge) still(f program.Front, to program.Backend) bool {
	return j.serving != nil && j.serving(f, to)
}

// Left returns the backends that still have clients, for the next judge. It is complete when every entry was judged.
func (j *Judge) Left() Left { return j.left }
