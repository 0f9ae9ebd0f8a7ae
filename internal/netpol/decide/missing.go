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

// missing are addresses of pods for which something was not found, and since
// when.
type missing map[netip.Addr]lostPod

type lostPod struct {
	name  string
	id    string // tells a later pod of the same name
	why   string // in a few words, may be empty
	since time.Time
}

// Grace is for pods that come and go: their interface and their object in the
// API do not appear and disappear together.
const Grace = 30 * time.Second

// update keeps the pods for which it is missing.
func (m missing) update(p *program.Program, is func(program.Pod) bool, now time.Time) {
	m.updateWhy(p, func(pod program.Pod) (string, bool) { return "", is(pod) }, now)
}

// updateWhy is update for what can be missing for different reasons.
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

// lookForPods finds what is missing to be sure of every pod. An isolated pod that
// neither a direct route nor a bridge's port leads to may have its traffic pass
// beside our hooks (a network that does not go through the node's IP layer). A pod on a
// bridge whose port is not known may have its address forged there. Neither must
// go unsaid.
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
		return w.Paths[pod.Addr].Beside && isolated(pod) && !misled
	}, w.Now)
	return slices.Concat(
		d.bypassed.problems(w.Now, Problem{Subject: "bypassed", Blocking: true,
			Text: "the interface that leads to isolated pods shows no pod's packets to the IP hooks, so policies are not enforced between pods beside it",
			Cure: "use a pod network of pairs of interfaces or bridges; macvlan, ipvlan, Open vSwitch, SR-IOV and Cilium's host routing are out of reach"}),
		d.unclear.problems(w.Now, Problem{Subject: "pods at an unclear port", Blocking: true,
			Text: "ports of bridges have addresses of isolated pods, but something speaks against it, so policies are not enforced there",
			Cure: "let one port of a bridge have each address, and give the node an address on that bridge, or no route to the pods' network elsewhere"}),
		d.unreached.problems(w.Now, Problem{Subject: "pods without an interface", Blocking: true,
			Text: "no direct route of this node and no port of a bridge leads to isolated pods, so their traffic may pass beside the rules",
			Cure: "use a pod network whose packets pass the host's IP hooks, or delete the objects of pods that are gone"}),
		d.contested.problems(w.Now, Problem{Subject: "pods at a contested port",
			Text: "something speaks against the port of a bridge that has the address of a pod, so nobody may use it and the pod is cut off",
			Cure: "find the pod that took another's address and take CAP_NET_ADMIN from it; " +
				"with the start gate the container runtime says whose port it is"}),
		d.unbound.problems(w.Now, Problem{Subject: "pods without a port",
			Text: "no port of their bridge is known to have these addresses, so a neighbour whose port is not known either can forge them"}))
}

// problems completes the problem with those that are missing for longer than
// the grace.
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

// FirstOf names the first of many.
func FirstOf(names []string) string {
	slices.Sort(names)
	const shown = 5
	text := strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return text
}

// What can be missing, as Findings.Unsure and the metric say it.
const (
	UnsureBypassed  = "bypassed"  // the interface shows no pod's packets to the IP hooks
	UnsureUnreached = "unreached" // neither a route nor a port leads there
	UnsureUnclear   = "unclear"   // something speaks against the port that has it, and no route leads there
	UnsureContested = "contested" // something speaks against the port that has it
	UnsureElsewhere = "elsewhere" // routes lead elsewhere
	UnsureUnbound   = "unbound"   // no port of the bridge has it
)

// Unsures lists what Findings.Unsure counts.
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

// firstLook is after which time something that is missing is looked for again. The
// pauses double until the end of the grace.
const firstLook = 100 * time.Millisecond

// nextLook returns when to look again for what is missing: at the end of the grace
// of each at the latest, so that a problem is said as soon as it is one. It returns
// 0 for never. Later it is looked for once in a period.
func (d *Decider) nextLook(w Wiring) (after time.Duration) {
	now := w.Now
	after = w.AskPorts
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
