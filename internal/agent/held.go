// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/observe"
)

// holding remembers since when pods of this node are held, and why.
type holding map[heldPod]time.Time

type heldPod struct {
	key cluster.Key
	why observe.HeldWhy
}

// update takes the pods that are held now, and returns them for the status.
func (h *holding) update(now time.Time, pods []heldPod) []observe.Held {
	next, list := make(holding, len(pods)), make([]observe.Held, 0, len(pods))
	for _, p := range pods {
		if _, twice := next[p]; twice {
			continue // by its address of the other family
		}
		since, known := (*h)[p]
		if !known {
			since = now
		}
		next[p] = since
		list = append(list, observe.Held{Pod: p.key.String(), Why: p.why, Since: since})
	}
	*h = next
	slices.SortFunc(list, func(a, b observe.Held) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod),
			cmp.Compare(a.Why, b.Why))
	})
	return list
}

// heldBy returns the pods with these addresses.
func heldBy(m *policy.Model, addrs []netip.Addr, why observe.HeldWhy) (pods []heldPod) {
	if len(addrs) == 0 {
		return nil
	}
	wanted := map[netip.Addr]bool{}
	for _, a := range addrs {
		wanted[a] = true
	}
	for _, w := range m.Layout.Workloads {
		for _, a := range w.Pod.IPs {
			if wanted[a] {
				pods = append(pods, heldPod{w.Pod.Key, why})
			}
		}
	}
	return pods
}
