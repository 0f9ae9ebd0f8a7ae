// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// extraHardware returns where the pods are whose ports may speak with further hardware
// addresses. One that is another pod's, or that two ask for, is nobody's, and both
// are named.
func (d *Decider) extraHardware(all *program.Program, w Wiring, out *Decision) (list []program.Attachment) {
	if len(w.Hardware) == 0 {
		return nil
	}
	claims := hardwareClaims(all, w)
	for _, pod := range all.Pods {
		path := w.Paths[pod.Addr]
		if path.Port == "" {
			continue
		}
		at := attachment(pod.Addr, path)
		for _, h := range w.Hardware[pod.Name] {
			if at.Hardware = h; h != path.Hardware && len(claims[h]) == 1 {
				list = append(list, at)
			}
		}
	}
	out.Problems = append(out.Problems, twins(claims)...)
	return list
}

// hardwareClaims returns which pods have or ask for each hardware address.
func hardwareClaims(all *program.Program, w Wiring) map[inet.Hardware]map[string]bool {
	claims := map[inet.Hardware]map[string]bool{}
	for _, pod := range all.Pods {
		path := w.Paths[pod.Addr]
		if path.Port == "" {
			continue
		}
		for _, h := range append([]inet.Hardware{path.Hardware}, w.Hardware[pod.Name]...) {
			if claims[h] == nil {
				claims[h] = map[string]bool{}
			}
			claims[h][pod.Name] = true
		}
	}
	return claims
}

// twins names those who claim one hardware address.
func twins(claims map[inet.Hardware]map[string]bool) []Problem {
	var names []string
	for h, pods := range claims {
		if len(pods) > 1 {
			names = append(names, fmt.Sprintf("%s (%s)", h, FirstOf(slices.Collect(maps.Keys(pods)))))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Problem{{Subject: "pods with one hardware address",
		Text: "several pods of this node claim a hardware address, so no annotation gives it to one of them: " + FirstOf(names),
		Cure: "give each a hardware address of its own in the annotation podwall.io/extra-addresses"}}
}
