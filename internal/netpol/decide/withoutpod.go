// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"maps"
	"slices"
	"time"
)

// lookForStrangers reports the interfaces that are closed because pods may be behind them although
// none is known: a pod whose object is missing, or a host that is not a pod and is now cut off.
func (d *Decider) lookForStrangers(w Wiring, out *Decision) []Problem {
	if d.options.OpenUnknown {
		return nil // they are open
	}
	out.WithoutPod = w.WithoutPod
	return d.strange(w.WithoutPod, w.Now)
}

// strange returns the problem with the interfaces that are strangers for longer than the grace.
func (d *Decider) strange(list []string, now time.Time) []Problem {
	maps.DeleteFunc(d.strangers, func(name string, _ time.Time) bool { return !slices.Contains(list, name) })
	var long []string
	for _, name := range list {
		since, known := d.strangers[name]
		if !known {
			d.strangers[name], since = now, now
		}
		if now.Sub(since) >= Grace {
			long = append(long, name)
		}
	}
	if len(long) == 0 {
		return nil
	}
	return []Problem{{Subject: "interfaces without a known pod",
		Text: "these interfaces may lead to pods, but no known pod is behind them, so they are closed: " +
			FirstOf(long),
		Cure: "list interfaces without pods in --uplink-interfaces; if pods are behind them, find out why their " +
			"objects are missing or have other addresses, or remove sandboxes that are left over"}}
}
