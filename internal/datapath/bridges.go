// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/program"
)

// podBridges returns the bridges that have to show their packets, sorted by name:
// those of pods that are wanted, also of those that are not programmed, and on a
// closed node all that may get pods, since the first are there before they are
// known.
func (d *Datapath) podBridges(all *program.Program, paths map[netip.Addr]links.Path) []links.Path {
	bridges := map[int]links.Path{}
	for _, pod := range all.Pods {
		if path := paths[pod.Addr]; path.Bridge {
			bridges[path.Index] = path
		}
	}
	if !d.options.OpenUnknown {
		for _, b := range d.links.Bridges() {
			bridges[b.Index] = cmp.Or(bridges[b.Index], b)
		}
	}
	return slices.SortedFunc(maps.Values(bridges), func(a, b links.Path) int { return cmp.Compare(a.Link, b.Link) })
}

// enforceBridges writes the settings of bridges, and remembers how they were: that
// belongs into the table of the same pass.
func (d *Datapath) enforceBridges(list []links.Path, report *Report) {
	d.bridged, d.blind = len(list) > 0, false
	for _, b := range list {
		d.enforceBridge(b, report)
	}
}

// enforceBridge makes a bridge hand its packets to the IP hooks, also VLAN-tagged
// ones, and remembers how it was.
func (d *Datapath) enforceBridge(b links.Path, report *Report) {
	subject := "bridge " + b.Link
	if b.Uplink {
		report.Problems = append(report.Problems, Problem{Subject: subject,
			Text: "pods and an uplink share this bridge: addresses that belong to no pod are not closed on it"})
	}
	if ports := d.links.NodePortsOf(b.Index); len(ports) > 0 {
		report.Problems = append(report.Problems, Problem{Subject: "node's port of " + b.Link,
			Text: "the node speaks on this bridge by a pair of interfaces (" + strings.Join(ports, ", ") +
				"): TCP between it and pods there may fail, " +
				"since packets cross connection tracking twice; a reset then counts as invalid and is dropped",
			Cure: "give the bridge itself the node's address"})
	}
	found, err := links.EnforceBridge(d.options.Sysctls, b.Index)
	d.blind = d.blind || err != nil
	switch {
	case errors.Is(err, links.ErrNoBridgeFilter):
		report.problem(subject, "not enforcing between pods of this bridge: br_netfilter is not loaded",
			"modprobe br_netfilter on the node, and name it in a file of /etc/modules-load.d for the next boot")
		return
	case err != nil:
		report.problem(subject, "not enforcing between pods of this bridge: "+err.Error(), needsAdmin)
		return
	case !found.All():
		d.keep(b.Link, entry{text: found.String()})
		d.log.Info("bridge now hands its packets to the IP hooks", "link", b.Link, "found", found.String(),
			"note", "a pod on it reaches itself through a Service only if its bridge port has hairpin mode")
	}
	was, err := links.FilterVLAN(d.options.Sysctls)
	d.blind = d.blind || err != nil
	switch {
	case err != nil:
		report.problem(subject, "VLAN-tagged frames between pods are not filtered: "+err.Error(),
			cureForSetting("bridge.bridge-nf-filter-vlan-tagged=1", err))
	case !was:
		d.keep(vlanEntry, entry{text: vlanWasOff})
	}
}
