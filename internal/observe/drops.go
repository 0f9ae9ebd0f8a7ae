// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"strings"
)

// DropReason says why a packet was dropped. It is the value of a label, too.
type DropReason string

// Why packets are dropped.
const (
	DropPolicyIngress DropReason = "policy-ingress" // no ingress rule allows it
	DropPolicyEgress  DropReason = "policy-egress"  // no egress rule allows it
	DropUnknownPod    DropReason = "unknown-pod"    // to an address that no known pod has
	DropSource        DropReason = "spoofed-source" // from an address that its pod does not have
	DropInvalid       DropReason = "invalid"        // of no valid connection, or with stacked VLAN tags
	DropBroadcast     DropReason = "broadcast"      // to one pod, in a broadcast frame
	DropCut           DropReason = "cut"            // would revive a connection that was cut
)

// DropReasons returns all reasons.
func DropReasons() []DropReason {
	return []DropReason{DropPolicyIngress, DropPolicyEgress, DropUnknownPod, DropSource, DropInvalid, DropBroadcast,
		DropCut}
}

func dropReasons() (names []string) {
	for _, r := range DropReasons() {
		names = append(names, string(r))
	}
	return names
}

// Drops are packets dropped, as the kernel's counters stand now.
type Drops map[DropReason]uint64

// SetDrops records the kernel's counters. A counter that went back was made
// from 0 by the kernel, so its value is new drops as a whole.
func (o *Observer) SetDrops(now Drops) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.status.DropsByReason == nil {
		o.status.DropsByReason = Drops{}
	}
	all := Drops{} // /statusz may still be reading the last one
	for _, r := range DropReasons() {
		more := grown(o.drops[r], now[r])
		all[r] = o.status.DropsByReason[r] + more
		o.status.Drops += more
		o.metrics.drops.WithLabelValues(string(r)).Add(float64(more))
	}
	o.drops, o.status.DropsByReason = now, all
}

// String lists the reasons of which there are some, in brackets; nothing if there are none.
func (d Drops) String() string {
	var list []string
	for _, r := range DropReasons() {
		if d[r] > 0 {
			list = append(list, fmt.Sprintf("%s %d", r, d[r]))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

func grown(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}
