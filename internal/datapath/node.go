// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// node says what Render has to know of the node. all are the pods that are wanted, also those that are not programmed
// yet: their interfaces are closed like those of the others.
func (d *Datapath) node(p, all *program.Program, paths map[netip.Addr]links.Path, report *Report) program.Node {
	n := program.Node{FilterHook: d.options.FilterHook || d.forced || len(d.survey.Before) > 0}
	n.Guard, report.GuardWhy = d.guard()
	report.Filter, report.Guard = n.FilterHook, n.Guard && !n.FilterHook
	if n.FilterHook {
		report.GuardWhy = "not needed: filter chains see every packet"
	}
	if len(d.survey.Before) > 0 && !d.options.FilterHook {
		report.problem("nat chain before ours", fmt.Sprintf("%s runs before podwall's and could end the walk; judging in filter chains instead",
			strings.Join(d.survey.Before, ", ")), "give that chain a priority above -190, or run with --datapath=filter")
	}
	if d.survey.Known > 0 {
		report.Problems = append(report.Problems, Problem{Subject: "kube-router",
			Text: fmt.Sprintf("%d chains of kube-router's firewall are in the kernel and judge packets too; if it has stopped, by the policies of that time", d.survey.Known),
			Cure: "stop kube-router on this node, then run podwall-agent --remove-kube-router-firewall=plan, and =now; see docs/migrate-from-kube-router.md"})
	}
	d.wiring(p, paths, &n)
	isolatedLinks(all, paths, &n)
	n.Restore = d.entries()
	return n
}

func (r *Report) problem(subject, text, cure string) {
	r.Problems = append(r.Problems, Problem{Subject: subject, Text: text, Cure: cure, Blocking: true})
}

func (d *Datapath) guard() (on bool, why string) {
	switch {
	case d.options.Guard == GuardOn:
		return true, "--invalid-guard=on"
	case d.options.Guard == GuardOff:
		return false, "--invalid-guard=off"
	case d.survey.DropsInvalid:
		return false, "auto: another table drops invalid packets at forward"
	}
	return true, "auto: no other table is seen to drop invalid packets at forward"
}

// wiring says on which interfaces pods are.
func (d *Datapath) wiring(p *program.Program, paths map[netip.Addr]links.Path, n *program.Node) {
	for _, pod := range p.Pods {
		path, ok := paths[pod.Addr]
		if !ok {
			continue // see unreached
		}
		at := program.Attachment{Link: path.Link, Addr: pod.Addr, Port: path.Port}
		n.Ported = append(n.Ported, at)
		if path.Uplink {
			continue // other machines may be behind it
		}
		n.Attached = append(n.Attached, at)
	}
	n.Closed, n.Open, n.Carried = !d.options.OpenUnknown, append(d.links.Open(), testLink), d.links.Carried()
	n.Bridges, n.NodePorts = d.links.AnyBridge(), d.links.NodePorts()
	if n.Closed {
		for _, b := range d.links.Bridges() {
			n.Carried = append(n.Carried, b.Link)
		}
	}
}

// isolatedLinks notes the interfaces that lead to isolated pods.
func isolatedLinks(p *program.Program, paths map[netip.Addr]links.Path, n *program.Node) {
	for _, pod := range p.Pods {
		path, ok := paths[pod.Addr]
		if !ok || path.Uplink || path.Elsewhere {
			continue // other machines may be behind it
		}
		if pod.Ingress != "" {
			n.Ingress = append(n.Ingress, path.Link)
		}
		if pod.Egress != "" {
			n.Egress = append(n.Egress, path.Link)
		}
	}
}

// entry is a setting as it was before we changed it, in the form in which it is
// kept in our table: an element's comment.
type entry struct{ text string }

// The pseudo interface under which the setting for VLAN-tagged frames is kept;
// a colon cannot be part of an interface name.
const (
	vlanEntry  = "sysctl:vlan"
	vlanWasOff = "bridge-nf-filter-vlan-tagged=0"
	// forcedEntry is kept when nat chains did not drop the self-test's packet, so
	// that the next process does not try them on a node that enforces.
	forcedEntry = "forced:filter"
)

// keep remembers the first value that was found, which is the one to restore.
func (d *Datapath) keep(name string, e entry) {
	if _, known := d.restore[name]; !known {
		d.restore[name] = e
	}
}

// remember takes over what an earlier process kept in the table.
func (d *Datapath) remember(t *nft.Table) {
	if t == nil {
		return
	}
	for _, s := range ruleset.Restore(t) {
		d.restore[s.Name] = entry{text: s.Text}
	}
	d.links.Remember(ruleset.CarriedLinks(t))
	if d.options.FilterHook {
		delete(d.restore, forcedEntry) // now it is what the operator wants
	}
	_, d.forced = d.restore[forcedEntry]
}

func (d *Datapath) entries() []program.Saved {
	var list []program.Saved
	for _, name := range slices.Sorted(maps.Keys(d.restore)) {
		list = append(list, program.Saved{Name: name, Text: d.restore[name].text})
	}
	return list
}

func (d *Datapath) putBack(name string, e entry) error {
	switch name {
	case vlanEntry:
		return links.SetVLAN(d.options.Sysctls, false)
	case forcedEntry:
		return nil
	}
	found, err := links.ParseBridged(e.text)
	if err != nil {
		return err
	}
	index := links.IndexOf(name)
	if index == 0 {
		return nil // the bridge is gone, and its settings with it
	}
	return links.SetBridge(index, found)
}
