// SPDX-License-Identifier: Apache-2.0

package program

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
)

// String returns the whole program as canonical text: equal text means equal programs. It is for
// tests and debugging; operators read the ruleset instead.
func (p *Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "family IPv%d\n", p.Family)
	for _, r := range slices.SortedFunc(p.Routes.All(), func(a, b Route) int { return a.Front.Compare(b.Front) }) {
		fmt.Fprintf(&b, "front %s inside %s outside %s", r.Front, r.Inside, r.Outside)
		if r.Admission != "" {
			fmt.Fprintf(&b, " admits %s", r.Admission)
		}
		if r.Sticky > 0 {
			fmt.Fprintf(&b, " sticky %ds", r.Sticky)
		}
		if r.Schedule != (Schedule{}) {
			fmt.Fprintf(&b, " %s", r.Schedule)
		}
		b.WriteString("\n")
	}
	for _, s := range slices.SortedFunc(p.Slots.All(), Slot.compare) {
		fmt.Fprintf(&b, "slot %s %d: %s", s.Front, s.Number, s.Backend)
		if s.Sticky > 0 {
			fmt.Fprintf(&b, " sticky %ds", s.Sticky)
		}
		b.WriteString("\n")
	}
	for _, e := range inet.Sorted(p.ClusterAddresses) {
		fmt.Fprintf(&b, "cluster address %s\n", e.Addr)
	}
	list(&b, "service range", p.ServiceRanges)
	list(&b, "node address", p.NodeAddresses)
	list(&b, "cluster pods", p.ClusterPods)
	list(&b, "node pods", p.NodePods)
	for _, e := range inet.Sorted(p.Loops) {
		fmt.Fprintf(&b, "loop %s\n", e.Addr)
	}
	for _, a := range p.Admissions {
		fmt.Fprintf(&b, "admission %s\n", a.Name)
		list(&b, "  range", a.Ranges)
	}
	return b.String()
}

func list[T fmt.Stringer](b *strings.Builder, what string, all []T) {
	for _, x := range all {
		fmt.Fprintf(b, "%s %s\n", what, x)
	}
}

// String returns the front as address port/protocol.
func (f Front) String() string {
	if !f.Addr.IsValid() {
		return fmt.Sprintf("node port %d/%s", f.Port, f.Protocol)
	}
	return fmt.Sprintf("%s port %d/%s", f.Addr, f.Port, f.Protocol)
}

// Compare orders fronts for printing: node ports first.
func (f Front) Compare(o Front) int {
	return cmp.Or(f.Addr.Compare(o.Addr), cmp.Compare(f.Port, o.Port), cmp.Compare(f.Protocol, o.Protocol))
}

func (s Slot) compare(o Slot) int {
	return cmp.Or(s.Front.Compare(o.Front), cmp.Compare(s.Number, o.Number), s.Addr.Compare(o.Addr),
		cmp.Compare(s.Port, o.Port))
}

// String returns the range of slots and what happens to the source, or the answer.
func (p Pick) String() string {
	source := [...]string{Never: "", Strangers: " masquerade strangers", Always: " masquerade"}[p.Masquerade]
	switch {
	case p.Count == 0 && p.Otherwise == Leave:
		return "leave" + source
	case p.Count == 0:
		return p.Otherwise.String()
	}
	return fmt.Sprintf("%d+%d%s", p.First, p.Count, source)
}

// String returns "drop", "reject" or "leave".
func (a Answer) String() string {
	return [...]string{Drop: "drop", Reject: "reject", Leave: "leave"}[a]
}

// String returns the kernel's name of the scheduler.
func (s Scheduler) String() string {
	return [...]string{RoundRobin: "rr", LeastConnection: "lc", SourceHash: "sh", DestinationHash: "dh",
		Maglev: "mh"}[s]
}

// ParseScheduler returns the scheduler with that name.
func ParseScheduler(name string) (s Scheduler, ok bool) {
	for s = RoundRobin; s <= Maglev; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return RoundRobin, false
}

// String returns the scheduler's name and its options, as in "scheduler mh+fallback".
func (s Schedule) String() string {
	text := "scheduler " + s.Scheduler.String()
	for i, name := range []string{"fallback", "port", "third"} {
		if s.Options&(1<<i) != 0 {
			text += "+" + name
		}
	}
	return text
}

// String returns address and port.
func (b Backend) String() string { return netip.AddrPortFrom(b.Addr, b.Port).String() }

// String returns the word for the fate.
func (f Fate) String() string {
	return [...]string{"dropped", "rejected", "forwarded", "not ours", "left"}[f]
}

// String returns the fate and, for a forwarded packet, where it goes.
func (o Outcome) String() string {
	switch {
	case o.Fate == Left && o.Masqueraded:
		return "left, masqueraded"
	case o.Fate != Forwarded:
		return o.Fate.String()
	case o.Masqueraded:
		return fmt.Sprintf("to %s, masqueraded", o.Backend)
	}
	return fmt.Sprintf("to %s", o.Backend)
}
