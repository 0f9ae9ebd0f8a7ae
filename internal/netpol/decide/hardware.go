// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// extraHardware returns the pods whose ports may send with extra hardware addresses. An address
// that another pod has or requests is given to neither, and both are named.
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
			if at.Hardware, at.Extra = h, true; h != path.Hardware && len(claims[h]) == 1 {
				list = append(list, at)
			}
		}
	}
	out.Problems = append(out.Problems, twins(claims)...)
	return list
}

// hardwareClaims returns the owners and claimants of each hardware address that an annotation
// requests.
func hardwareClaims(all *program.Program, w Wiring) map[inet.Hardware]map[string]bool {
	claims := map[inet.Hardware]map[string]bool{}
	for name, list := range w.Hardware {
		for _, h := range list {
			if claims[h] == nil {
				claims[h] = map[string]bool{}
			}
			claims[h][name] = true
			if who := w.HardwareOwners[h]; who != "" {
				claims[h][who] = true
			}
		}
	}
	for _, pod := range all.Pods {
		if path := w.Paths[pod.Addr]; path.Port != "" && claims[path.Hardware] != nil {
			claims[path.Hardware][pod.Name] = true
		}
	}
	return claims
}

// twins names the claimants of hardware addresses with more than one.
func twins(claims map[inet.Hardware]map[string]bool) []Problem {
	var names []string
	for h, whose := range claims {
		if len(whose) > 1 {
			names = append(names, fmt.Sprintf("%s (%s)", h, FirstOf(slices.Collect(maps.Keys(whose)))))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Problem{{Subject: "pods with one hardware address",
		Text: "pods request by annotation hardware addresses that others of this node have or request too, " +
			"so no annotation gives these: " + FirstOf(names),
		Cure: "give each a hardware address of its own in the annotation podwall.io/extra-addresses"}}
}
