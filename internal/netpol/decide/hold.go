// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A pod whose address may have connections older than the pod is held: it is closed until the
// connection table was searched for them, outside the loop. The other pods do not wait. If the
// search was made when the pod's route appeared, the pod is not held. ADR 0012 has the reasoning.

// Held lists the pods that must wait, and the new ones that need not.
type Held struct {
	Addrs []netip.Addr // closed for now
	Added []netip.Addr // of pods that are new and not held
	// Empty are those of Added that were closed with no connection left until now.
	Empty map[netip.Addr]bool
	// Link holds the interface index of each of Addrs.
	Link map[netip.Addr]int
	// Searching is false if no search runs outside the loop: then no pod is held, and the commit
	// searches itself.
	Searching bool

	known *program.Program // without the held pods
}

// hold returns the program with the pods closed that must wait.
func (d *Decider) hold(p *program.Program, w Wiring) (*program.Program, Held) {
	h := Held{known: p, Link: map[netip.Addr]int{}, Empty: map[netip.Addr]bool{}, Searching: w.Searching}
	if !h.Searching {
		return p, h
	}
	before := &program.Program{Pods: d.before(p, w)}
	waits, open := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, pod := range p.Pods {
		// Hosts other than pods may be behind a bridge with an uplink, so only known addresses are
		// closed there.
		open[pod.Addr] = d.options.OpenUnknown || w.Paths[pod.Addr].Uplink
		was, known := podAt(before, pod.Addr)
		moved := known && (was.Name != pod.Name || was.ID != pod.ID)
		if known && !moved && !closedByHold(was) || !known && open[pod.Addr] {
			continue
		}
		path, direct := w.Paths[pod.Addr]
		link := path.Index
		if found, clean := w.Clean[pod.Addr]; !moved && clean && found.Link == link {
			h.Added = append(h.Added, pod.Addr)
			// Without a path nothing closed the address since the search.
			h.Empty[pod.Addr] = direct && found.Empty
			continue
		}
		waits[pod.Addr], h.Link[pod.Addr] = true, link
		h.Addrs = append(h.Addrs, pod.Addr)
	}
	if len(waits) == 0 {
		return p, h
	}
	h.known = without(p, func(pod program.Pod) bool { return waits[pod.Addr] })
	listed := without(p, func(pod program.Pod) bool { return waits[pod.Addr] && !open[pod.Addr] })
	return ClosedFor(listed, heldChain, func(pod program.Pod) bool { return waits[pod.Addr] }), h
}

// before returns the pods that the kernel's rules contained until now.
func (d *Decider) before(p *program.Program, w Wiring) []program.Pod {
	switch {
	case d.judged != nil:
		return d.judged.Pods
	case len(w.Recorded) > 0:
		return w.Recorded
	}
	return p.Pods
}

func without(p *program.Program, out func(program.Pod) bool) *program.Program {
	return &program.Program{Pods: slices.DeleteFunc(slices.Clone(p.Pods), out), Chains: p.Chains, Sets: p.Sets}
}

// heldChain is the prefix of the names of chains that allow nothing.
const heldChain = "held-"

// closedByHold reports whether hold closed the pod.
func closedByHold(pod program.Pod) bool { return strings.HasPrefix(pod.Ingress, heldChain) }

// ClosedFor returns the program with these pods isolated and allowed nothing, by chains of their
// own. Leaving a pod out would open it where addresses of unknown pods are open.
func ClosedFor(p *program.Program, prefix string, is func(program.Pod) bool) *program.Program {
	closed := &program.Program{Pods: slices.Clone(p.Pods), Chains: slices.Clone(p.Chains), Sets: p.Sets}
	chains := map[string]*program.Chain{}
	name := func(f inet.Family, d program.Direction) string {
		c := &program.Chain{Name: prefix + d.String() + "4", Direction: d, Family: f}
		if f == inet.IPv6 {
			c.Name = prefix + d.String() + "6"
		}
		chains[c.Name] = c
		return c.Name
	}
	for i := range closed.Pods {
		if pod := &closed.Pods[i]; is(*pod) {
			f := inet.FamilyOf(pod.Addr)
			pod.Ingress, pod.Egress = name(f, program.Ingress), name(f, program.Egress)
			pod.AuditIngress, pod.AuditEgress = "", ""
		}
	}
	for _, c := range chains {
		closed.Chains = append(closed.Chains, c)
	}
	slices.SortFunc(closed.Chains, func(a, b *program.Chain) int { return strings.Compare(a.Name, b.Name) })
	return closed
}

func podAt(p *program.Program, a netip.Addr) (pod program.Pod, found bool) {
	i, found := slices.BinarySearchFunc(p.Pods, a, func(e program.Pod, a netip.Addr) int { return e.Addr.Compare(a) })
	if found {
		pod = p.Pods[i]
	}
	return pod, found
}

// Owns reports whether an address is that of a pod of the program.
func Owns(p *program.Program, a netip.Addr) bool {
	_, found := podAt(p, a)
	return found
}
