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

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/links"
)

// missing are addresses of pods for which something was not found, and since
// when.
type missing map[netip.Addr]lostPod

type lostPod struct {
	name  string
	since time.Time
}

// grace is for pods that come and go: their interface and their object in the
// API do not appear and disappear together.
const grace = 30 * time.Second

// update keeps the pods for which it is missing.
func (m missing) update(p *filter.Program, is func(filter.Pod) bool, now time.Time) {
	lost := map[netip.Addr]bool{}
	for _, pod := range p.Pods {
		if !is(pod) {
			continue
		}
		lost[pod.Addr] = true
		if _, known := m[pod.Addr]; !known {
			m[pod.Addr] = lostPod{pod.Name, now}
		}
	}
	maps.DeleteFunc(m, func(a netip.Addr, _ lostPod) bool { return !lost[a] })
}

// lookForPods finds what is missing to be sure of every pod. An isolated pod that no
// direct route leads to may have its traffic pass beside our hooks (a network
// that does not go through the node's IP layer, a bridge without an address). A
// pod on a bridge whose port is not known may have its address forged there.
// Neither must go unsaid.
func (d *Datapath) lookForPods(p *filter.Program, paths map[netip.Addr]links.Path, now time.Time) []Problem {
	d.unreached.update(p, func(pod filter.Pod) bool {
		_, found := paths[pod.Addr]
		return !found && (pod.Ingress != "" || pod.Egress != "")
	}, now)
	d.unbound.update(p, func(pod filter.Pod) bool {
		path := paths[pod.Addr]
		return path.Bridge && path.Port == ""
	}, now)
	d.bypassed.update(p, func(pod filter.Pod) bool {
		return paths[pod.Addr].Beside && (pod.Ingress != "" || pod.Egress != "")
	}, now)
	return slices.Concat(
		d.bypassed.problems(now, Problem{Subject: "bypassed", Blocking: true,
			Text: "the interface that leads to isolated pods shows no pod's packets to the IP hooks, so policies are not enforced between pods beside it",
			Cure: "use a pod network of pairs of interfaces or bridges; macvlan, ipvlan, Open vSwitch, SR-IOV and Cilium's host routing are out of reach"}),
		d.unreached.problems(now, Problem{Subject: "pods without an interface",
			Text: "no direct route of this node leads to isolated pods, so their traffic may pass beside the rules",
			Cure: "use a pod network whose packets pass the host's IP hooks, or delete pods that are gone"}),
		d.unbound.problems(now, Problem{Subject: "pods without a port",
			Text: "no port of their bridge is known to have these addresses, so that a neighbour can forge them"}))
}

// problems completes the problem with those that are missing for longer than
// the grace.
func (m missing) problems(now time.Time, p Problem) []Problem {
	var names []string
	for a, pod := range m {
		if now.Sub(pod.since) >= grace {
			names = append(names, fmt.Sprintf("%s (%s)", pod.name, a))
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	const shown = 5
	text := strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	p.Text += ": " + text
	return []Problem{p}
}
