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

// unreached are the addresses of isolated pods that no direct route leads to,
// and since when. Their traffic may pass beside our hooks (a network that does
// not go through the node's IP layer, a bridge without an address), so it must
// not go unsaid that nothing is known about them.
type unreached map[netip.Addr]lostPod

type lostPod struct {
	name  string
	since time.Time
}

// grace is for pods that come and go: their interface and their object in the
// API do not appear and disappear together.
const grace = 30 * time.Second

func (u unreached) update(p *filter.Program, paths map[netip.Addr]links.Path, now time.Time) {
	lost := map[netip.Addr]bool{}
	for _, pod := range p.Pods {
		if _, found := paths[pod.Addr]; found || pod.Ingress == "" && pod.Egress == "" {
			continue
		}
		lost[pod.Addr] = true
		if _, known := u[pod.Addr]; !known {
			u[pod.Addr] = lostPod{pod.Name, now}
		}
	}
	maps.DeleteFunc(u, func(a netip.Addr, _ lostPod) bool { return !lost[a] })
}

// problems reports those that are missing for longer than the grace.
func (u unreached) problems(now time.Time) []Problem {
	var names []string
	for a, pod := range u {
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
	return []Problem{{Subject: "pods without an interface",
		Text: "no direct route of this node leads to isolated pods, so their traffic may pass beside the rules: " + text,
		Cure: "use a pod network whose packets pass the host's IP hooks, or delete pods that are gone"}}
}
