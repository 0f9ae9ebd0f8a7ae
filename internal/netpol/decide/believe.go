// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/netpol/program"
)

// belief is the last result of believe: if the same addresses are left out of the same pods it
// returns the same slice, so that the renderer can skip it.
type belief struct {
	of, without []program.Pod
	elsewhere   map[netip.Addr]bool
}

// strays returns the addresses whose routes do not lead to a pod of this node: by a gateway, to the
// node itself, or over an interface without pods. An address without any route is not among them:
// its pod may be about to get one. Addresses that the runtime announced are trusted whatever the
// routes are.
func strays(p *program.Program, w Wiring) map[netip.Addr]bool {
	found := map[netip.Addr]bool{}
	for _, pod := range p.Pods {
		path, direct := w.Paths[pod.Addr]
		if (direct && path.Elsewhere || !direct && w.Routed[pod.Addr]) && !w.Announced[pod.Addr] {
			found[pod.Addr] = true
		}
	}
	return found
}

// leave returns the program without the pods of these addresses. Chains and sets stay, so that a
// pod that is trusted again needs only an element. If there are none it is the same program.
func (b *belief) leave(p *program.Program, elsewhere map[netip.Addr]bool) *program.Program {
	if len(elsewhere) == 0 {
		*b = belief{}
		return p
	}
	if len(p.Pods) == 0 {
		return p
	}
	same := len(b.of) == len(p.Pods) && &b.of[0] == &p.Pods[0] && maps.Equal(b.elsewhere, elsewhere)
	if !same {
		pods := slices.DeleteFunc(slices.Clone(p.Pods), func(pod program.Pod) bool { return elsewhere[pod.Addr] })
		*b = belief{of: p.Pods, without: pods, elsewhere: elsewhere}
	}
	return &program.Program{Pods: b.without, Chains: p.Chains, Sets: p.Sets}
}

// trusted are the pods whose addresses were trusted before. Routes disappear for a moment (a
// network daemon restarts, a bridge is set down and up). Such a pod stays for the grace, because
// leaving it out ends its connections.
type trusted map[netip.Addr]owner

type owner struct{ name, id string }

// update records the trusted pods, and removes from the strays the pods that were trusted within
// the grace.
func (t trusted) update(p *program.Program, strays map[netip.Addr]bool, since missing, now time.Time) {
	if len(t) > 2*len(p.Pods) {
		clear(t) // mostly pods that are gone
	}
	for _, pod := range p.Pods {
		who := owner{pod.Name, pod.ID}
		switch {
		case !strays[pod.Addr]:
			t[pod.Addr] = who
		case t[pod.Addr] == who && now.Sub(since[pod.Addr].since) < Grace:
			delete(strays, pod.Addr)
		default:
			delete(t, pod.Addr)
		}
	}
}

// believe returns the program without the addresses that cannot belong to pods of this node, and
// names their pods. Left-out addresses are closed on interfaces with pods, like every address of no
// known pod, and open on interfaces without, whose hosts they may belong to. If unknown addresses
// are open they stay in the program: leaving them out would open a pod whose route appears after
// its object (invariant 3).
func (d *Decider) believe(all, p *program.Program, w Wiring, out *Decision) *program.Program {
	elsewhere := strays(all, w)
	d.misled.update(all, func(pod program.Pod) bool { return elsewhere[pod.Addr] }, w.Now)
	d.trusted.update(all, elsewhere, d.misled, w.Now)
	text, cure := "the routes of this node do not lead to its pods at these addresses but elsewhere, so the "+
		"addresses are not taken for pods'",
		"correct status.podIPs of these pods, or the node's routes to them; delete pods that are gone"
	if d.options.OpenUnknown {
		text = "the routes of this node do not lead to its pods at these addresses but elsewhere: " +
			"if they are others', the policies of these pods are applied to others"
		elsewhere = nil
	}
	out.Elsewhere = slices.SortedFunc(maps.Keys(elsewhere), netip.Addr.Compare)
	out.Problems = append(out.Problems, d.misled.problems(w.Now, Problem{Subject: "pods elsewhere", Text: text,
		Cure: cure})...)
	return d.belief.leave(p, elsewhere)
}
