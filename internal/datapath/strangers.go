// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"maps"
	"slices"
	"time"
)

// lookForStrangers says which interfaces are closed because pods may be behind
// them, while none is known: a pod whose object is missing, or something else than
// a pod, which then is cut off.
func (d *Datapath) lookForStrangers(report *Report, now time.Time) []Problem {
	if d.options.OpenUnknown {
		return nil // they are open
	}
	report.Strangers = d.links.Strangers()
	return d.strange(report.Strangers, now)
}

// strange returns the problem with those that are strangers for longer than the
// grace.
func (d *Datapath) strange(list []string, now time.Time) []Problem {
	maps.DeleteFunc(d.strangers, func(name string, _ time.Time) bool { return !slices.Contains(list, name) })
	var long []string
	for _, name := range list {
		since, known := d.strangers[name]
		if !known {
			d.strangers[name], since = now, now
		}
		if now.Sub(since) >= grace {
			long = append(long, name)
		}
	}
	if len(long) == 0 {
		return nil
	}
	return []Problem{{Subject: "interfaces without a known pod",
		Text: "these interfaces may lead to pods, but no known pod is behind them, so they are closed: " + firstOf(long),
		Cure: "name those that lead elsewhere in --uplink-interfaces; where pods are behind them, find out why their objects are missing or have other addresses, or remove sandboxes that are left over"}}
}
