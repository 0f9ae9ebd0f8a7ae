// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/kernel/links"
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

// grace is for pods that come and go: their interface and their object in the
// API do not appear and disappear together.
const grace = 30 * time.Second

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
// go unsaid. unclear says why an address that some port has is not believed.
func (d *Datapath) lookForPods(p *program.Program, paths map[netip.Addr]links.Path, unclear map[netip.Addr]string,
	now time.Time) []Problem {
	isolated := func(pod program.Pod) bool { return pod.Ingress != "" || pod.Egress != "" }
	d.unclear.updateWhy(p, func(pod program.Pod) (string, bool) {
		why := unclear[pod.Addr]
		return why, why != "" && isolated(pod)
	}, now)
	d.unreached.update(p, func(pod program.Pod) bool {
		_, found := paths[pod.Addr]
		_, misled := d.misled[pod.Addr] // has a problem of its own, see believe
		return !found && isolated(pod) && unclear[pod.Addr] == "" && !misled
	}, now)
	d.unbound.update(p, func(pod program.Pod) bool {
		path := paths[pod.Addr]
		return path.Bridge && path.Port == ""
	}, now)
	d.bypassed.update(p, func(pod program.Pod) bool {
		_, misled := d.misled[pod.Addr]
		return paths[pod.Addr].Beside && isolated(pod) && !misled
	}, now)
	return slices.Concat(
		d.bypassed.problems(now, Problem{Subject: "bypassed", Blocking: true,
			Text: "the interface that leads to isolated pods shows no pod's packets to the IP hooks, so policies are not enforced between pods beside it",
			Cure: "use a pod network of pairs of interfaces or bridges; macvlan, ipvlan, Open vSwitch, SR-IOV and Cilium's host routing are out of reach"}),
		d.unclear.problems(now, Problem{Subject: "pods at an unclear port", Blocking: true,
			Text: "ports of bridges have addresses of isolated pods, but something speaks against it, so policies are not enforced there",
			Cure: "let one port of a bridge have each address, and give the node an address on that bridge, or no route to the pods' network elsewhere"}),
		d.unreached.problems(now, Problem{Subject: "pods without an interface", Blocking: true,
			Text: "no direct route of this node and no port of a bridge leads to isolated pods, so their traffic may pass beside the rules",
			Cure: "use a pod network whose packets pass the host's IP hooks, or delete the objects of pods that are gone"}),
		d.unbound.problems(now, Problem{Subject: "pods without a port",
			Text: "no port of their bridge is known to have these addresses, so that a neighbour can forge them"}))
}

// problems completes the problem with those that are missing for longer than
// the grace.
func (m missing) problems(now time.Time, p Problem) []Problem {
	var names []string
	for a, pod := range m {
		if now.Sub(pod.since) >= grace {
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
	p.Text += ": " + firstOf(names)
	return []Problem{p}
}

// firstOf names the first of many.
func firstOf(names []string) string {
	slices.Sort(names)
	const shown = 5
	text := strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return text
}

// What can be missing, as Report.Unsure and the metric say it.
const (
	unsureBypassed  = "bypassed"  // the interface shows no pod's packets to the IP hooks
	unsureUnreached = "unreached" // neither a route nor a port leads there
	unsureUnclear   = "unclear"   // something speaks against the port that has it
	unsureElsewhere = "elsewhere" // routes lead elsewhere
	unsureUnbound   = "unbound"   // no port of the bridge has it
)

// Unsures lists what Report.Unsure counts.
func Unsures() []string {
	return []string{unsureBypassed, unsureElsewhere, unsureUnbound, unsureUnclear, unsureUnreached}
}

func (d *Datapath) lost() map[string]missing {
	return map[string]missing{unsureBypassed: d.bypassed, unsureUnreached: d.unreached,
		unsureUnclear: d.unclear, unsureElsewhere: d.misled, unsureUnbound: d.unbound}
}

func (d *Datapath) unsure() map[string]int {
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
func (d *Datapath) nextLook(now time.Time) (after time.Duration) {
	for _, m := range d.lost() {
		for _, pod := range m {
			age := now.Sub(pod.since)
			if age >= grace {
				continue
			}
			if wait := min(max(age, firstLook), grace-age); after == 0 || wait < after {
				after = wait
			}
		}
	}
	for _, since := range d.strangers {
		if wait := grace - now.Sub(since); wait > 0 && (after == 0 || wait < after) {
			after = wait
		}
	}
	return after
}
