// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// A pod whose address may have connections from before it is held: it is closed
// until the connection table was looked through for them, beside the loop. Who
// else is in the program does not wait. Where the look was made when the pod's
// route appeared (arrivals), the pod is not held. ADR 0012 has the argument.

// held is what hold found.
type held struct {
	addrs []netip.Addr     // closed for now
	came  []netip.Addr     // those of pods that were not known before and are not held
	known *program.Program // without those that are held
	link  map[netip.Addr]int
	// beside is false if nobody looks beside the loop (Watch does not run): then
	// nobody is held, and Apply looks itself.
	beside bool
}

// hold returns the program in which the pods are closed that must wait.
func (d *Datapath) hold(p *program.Program, paths map[netip.Addr]links.Path) (*program.Program, held) {
	c := &d.cuts
	h := held{known: p, link: map[netip.Addr]int{}}
	if h.beside = c.conn != nil && c.arrivals.running.Load(); !h.beside {
		return p, h
	}
	before := ruleset.LocalPods(d.actual, p)
	if c.judged != nil {
		before = c.judged.Pods
	}
	waits, open := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, pod := range p.Pods {
		// Others than pods may be behind a bridge with an uplink, so nothing is closed
		// there but by its address.
		open[pod.Addr] = d.options.OpenUnknown || paths[pod.Addr].Uplink
		was, known := podIn(before, pod.Addr)
		moved := known && (was.Name != pod.Name || was.ID != pod.ID)
		if known && !moved && !c.closes(was) || !known && open[pod.Addr] {
			continue
		}
		link := paths[pod.Addr].Index
		if !moved && c.arrivals.ready(pod.Addr, link) {
			h.came = append(h.came, pod.Addr)
			continue
		}
		waits[pod.Addr], h.link[pod.Addr] = true, link
		h.addrs = append(h.addrs, pod.Addr)
	}
	if len(waits) == 0 {
		return p, h
	}
	h.known = &program.Program{Pods: slices.DeleteFunc(slices.Clone(p.Pods), func(pod program.Pod) bool { return waits[pod.Addr] }),
		Chains: p.Chains, Sets: p.Sets}
	out := func(pod program.Pod) bool { return waits[pod.Addr] && !open[pod.Addr] }
	listed := &program.Program{Pods: slices.DeleteFunc(slices.Clone(p.Pods), out), Chains: p.Chains, Sets: p.Sets}
	return closedFor(listed, heldChain, func(pod program.Pod) bool { return waits[pod.Addr] }), h
}

// heldChain begins the names of chains that allow nothing.
const heldChain = "held-"

// closes reports whether the pod is closed by hold.
func (c *cuts) closes(pod program.Pod) bool { return strings.HasPrefix(pod.Ingress, heldChain) }

// closedFor returns the program in which these pods are isolated and allowed
// nothing, by chains of their own. To leave a pod out would open it where addresses
// of unknown pods are open.
func closedFor(p *program.Program, prefix string, is func(program.Pod) bool) *program.Program {
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
		}
	}
	for _, c := range chains {
		closed.Chains = append(closed.Chains, c)
	}
	slices.SortFunc(closed.Chains, func(a, b *program.Chain) int { return strings.Compare(a.Name, b.Name) })
	return closed
}

func podIn(pods []program.Pod, a netip.Addr) (program.Pod, bool) {
	return podAt(&program.Program{Pods: pods}, a)
}

// held has what waits looked for, once the commit has closed it.
func (a *arrivals) hold(h held) {
	a.mu.Lock()
	for _, addr := range h.came {
		a.newcomers.listed(addr)
	}
	for _, addr := range h.addrs {
		a.newcomers.hold(addr, h.link[addr])
	}
	a.mu.Unlock()
	if len(h.addrs) > 0 {
		a.wake()
	}
}
