// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/netpol/program"
)

// missing are addresses of pods for which a fact was not found, and since when.
type missing map[netip.Addr]lostPod

type lostPod struct {
	name  string
	id    string // distinguishes a later pod of the same name
	why   string // in a few words, may be empty
	since time.Time
}

// Grace allows for pods that start and stop: their interface and their API object do not appear and
// disappear at the same time.
const Grace = 30 * time.Second

// update keeps the pods for which the fact is missing.
func (m missing) update(p *program.Program, is func(program.Pod) bool, now time.Time) {
	m.updateWhy(p, func(pod program.Pod) (string, bool) { return "", is(pod) }, now)
}

// updateWhy is update for a fact that can be missing for different reasons.
func (m missing) updateWhy(p *program.Program, is func(program.Pod) (why string, missing bool), now time.Time) {
	lost := map[netip.Addr]bool{}
	for _, pod := range p.Pods {
		why, is := is(pod)
		if !is {
			continue
		}
		lost[pod.Addr] = true
		since := now
		if before, known := m[pod.Addr]; known && before.name == pod.Name && before.id == pod.ID {
			since = before.since
		}
		m[pod.Addr] = lostPod{pod.Name, pod.ID, why, since}
	}
	maps.DeleteFunc(m, func(a netip.Addr, _ lostPod) bool { return !lost[a] })
}

// lookForPods returns the problems with the wiring of pods. The traffic of an isolated pod to which
// neither a direct route nor a bridge port leads may bypass our hooks (a network that does not use
// the node's IP layer). The address of a pod on a bridge whose port is not known may be spoofed
// there. Both must be reported.
func (d *Decider) lookForPods(p *program.Program, w Wiring) []Problem {
	isolated := func(pod program.Pod) bool { return pod.Ingress != "" || pod.Egress != "" }
	d.unclear.updateWhy(p, func(pod program.Pod) (string, bool) {
		why := w.Unclear[pod.Addr]
		return why, why != "" && isolated(pod) && !w.Paths[pod.Addr].Bridge
	}, w.Now)
	d.contested.updateWhy(p, func(pod program.Pod) (string, bool) {
		why := w.Unclear[pod.Addr]
		return why, why != "" && w.Paths[pod.Addr].Bridge
	}, w.Now)
	d.unreached.update(p, func(pod program.Pod) bool {
		_, found := w.Paths[pod.Addr]
		_, misled := d.misled[pod.Addr] // has a problem of its own, see believe
		return !found && isolated(pod) && w.Unclear[pod.Addr] == "" && !misled
	}, w.Now)
	d.unbound.update(p, func(pod program.Pod) bool {
		path := w.Paths[pod.Addr]
		return path.Bridge && path.Port == "" && w.Unclear[pod.Addr] == ""
	}, w.Now)
	d.bypassed.update(p, func(pod program.Pod) bool {
		_, misled := d.misled[pod.Addr]
		return w.Paths[pod.Addr].Bypassed && isolated(pod) && !misled
	}, w.Now)
	return slices.Concat(
		d.bypassed.problems(w.Now, Problem{Subject: "bypassed", Blocking: true,
			Text: "the interface that leads to isolated pods does not pass the pods' packets to the IP hooks, so " +
				"policies are not enforced between pods there",
			Cure: "use a pod network of pairs of interfaces or bridges; macvlan, ipvlan, Open vSwitch, SR-IOV and " +
				"Cilium's host routing are out of reach"}),
		d.unclear.problems(w.Now, Problem{Subject: "pods at an unclear port", Blocking: true,
			Text: "ports of bridges have addresses of isolated pods, but other facts contradict that, so policies " +
				"are not enforced there",
			Cure: "let one port of a bridge have each address, and give the node an address on that bridge, or no " +
				"route to the pods' network elsewhere"}),
		d.unreached.problems(w.Now, Problem{Subject: "pods without an interface", Blocking: true,
			Text: "no direct route of this node and no port of a bridge leads to isolated pods, so their traffic may " +
				"bypass the rules",
			Cure: "use a pod network whose packets pass the host's IP hooks, or delete the objects of pods that are " +
				"gone"}),
		d.contested.problems(w.Now, Problem{Subject: "pods at a contested port",
			Text: "a bridge port has the address of a pod, but other facts contradict that, so no port may use it " +
				"and the pod is cut off",
			Cure: "find the pod that took another's address and take CAP_NET_ADMIN from it; " +
				"with the start gate the container runtime says whose port it is"}),
		d.unbound.problems(w.Now, Problem{Subject: "pods without a port",
			Text: "no port of their bridge is known to have these addresses, so a neighbour whose port is not known " +
				"either can forge them"}))
}

// problems completes the problem with the pods that are missing for longer than the grace.
func (m missing) problems(now time.Time, p Problem) []Problem {
	var names []string
	for a, pod := range m {
		if now.Sub(pod.since) >= Grace {
			at := a.String()
			if pod.why != "" {
				at += ": " + pod.why
			}
			names = append(names, fmt.Sprintf("%s (%s)", pod.name, at))
		}
	}
	if len(names) == 0 {
		return nil
	}
	p.Text += ": " + FirstOf(names)
	return []Problem{p}
}

// FirstOf names the first few of many.
func FirstOf(names []string) string {
	slices.Sort(names)
	const shown = 5
	text := strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return text
}

// The kinds of missing facts, as in Findings.Unsure and the metric.
const (
	UnsureBypassed  = "bypassed"  // the interface shows no pod's packets to the IP hooks
	UnsureUnreached = "unreached" // neither a route nor a port leads there
	UnsureUnclear   = "unclear"   // other facts contradict the port that has it, and no route leads there
	UnsureContested = "contested" // other facts contradict the port that has it
	UnsureElsewhere = "elsewhere" // routes lead elsewhere
	UnsureUnbound   = "unbound"   // no port of the bridge has it
)

// Unsures lists the keys of Findings.Unsure.
func Unsures() []string {
	return []string{UnsureBypassed, UnsureContested, UnsureElsewhere, UnsureUnbound, UnsureUnclear, UnsureUnreached}
}

func (d *Decider) lost() map[string]missing {
	return map[string]missing{UnsureBypassed: d.bypassed, UnsureUnreached: d.unreached,
		UnsureUnclear: d.unclear, UnsureContested: d.contested, UnsureElsewhere: d.misled, UnsureUnbound: d.unbound}
}

func (d *Decider) unsure() map[string]int {
	counts := map[string]int{}
	for what, m := range d.lost() {
		counts[what] = len(m)
	}
	return counts
}

// firstLook is the first pause before a missing fact is checked again. The pauses double until the
// end of the grace.
const firstLook = 100 * time.Millisecond

// nextLook returns when to check again for missing facts, 0 for never: at the end of the grace of
// each at the latest, so that a problem is reported as soon as it is one. After that it is checked
// once per period.
func (d *Decider) nextLook(w Wiring) (after time.Duration) {
	now := w.Now
	after = w.RetryPorts
	for _, m := range d.lost() {
		for _, pod := range m {
			age := now.Sub(pod.since)
			if age >= Grace {
				continue
			}
			if wait := min(max(age, firstLook), Grace-age); after == 0 || wait < after {
				after = wait
			}
		}
	}
	for _, since := range d.strangers {
		if wait := Grace - now.Sub(since); wait > 0 && (after == 0 || wait < after) {
			after = wait
		}
	}
	return after
}
