// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kuberouter"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The first third of a pass: it only reads and does not change the kernel. It takes the denied connections
// from the scans that found them.

// surveyOthers reads what other programs do at our hooks. It runs before the table is read, so that no generation
// counts as known whose other rules were not read.
func (d *Datapath) surveyOthers() error {
	mark, err := d.conn.Mark()
	if err != nil {
		return err
	}
	s, err := d.conn.Survey(ruleset.PriorityNAT, kuberouter.IsFirewallChain)
	if err != nil {
		return err
	}
	if d.survey == nil || len(s.Before) != len(d.survey.Before) {
		d.proof.tested = false
	}
	d.legacy.look()
	d.survey, d.surveyed = &s, mark
	return nil
}

// observeWiring reads how the pods are wired. It runs after other programs' rules and our table were read.
func (d *Datapath) observeWiring(ctx context.Context, all *program.Program, node addresses) (decide.Wiring, error) {
	paths, err := d.links.Find(ctx, d.addressesOf(all.Pods))
	if err != nil {
		return decide.Wiring{}, err // without paths the closing rules would be removed
	}
	w := decide.Wiring{
		Now: d.now(), Paths: paths, Routed: map[netip.Addr]bool{}, Announced: map[netip.Addr]bool{},
		Unclear: d.links.Unclear(),
		// The self-test may run while the interfaces are listed.
		Open: append(slices.DeleteFunc(d.links.Open(), isTestPeer), testLink), WithoutPod: d.links.WithoutPod(),
		RememberedBridges: d.links.RememberedBridges(),
		NodePorts:         d.links.NodePorts(), UplinkPorts: d.links.UplinkPorts(), Ports: d.links.Ports(),
		Bridges: d.links.Bridges(), AnyBridge: d.links.AnyBridge(), Own: node.own, RetryPorts: d.links.RetryAfter(),
		Hardware: d.extraHardware(all.Pods),
		Others: decide.Others{NATBefore: d.survey.Before, NATBeforeRouting: d.survey.BeforeRouting,
			DropsInvalid: d.survey.DropsInvalid, KubeRouter: slices.Concat(d.survey.Known, d.legacy.chains),
			LegacyUnread: d.legacy.err},
	}
	if d.decider.Fresh() {
		w.Recorded = ruleset.LocalPods(d.table.actual, all)
	}
	for _, pod := range all.Pods {
		path, direct := paths[pod.Addr]
		if direct && !path.Elsewhere {
			continue
		}
		w.Routed[pod.Addr] = !direct && d.links.Elsewhere(pod.Addr)
		_, w.Announced[pod.Addr] = d.announced(pod.Addr)
	}
	if w.Hardware != nil {
		w.HardwareOwners = d.links.Hardware()
	}
	if d.cuts.conn != nil {
		w.Searching, w.Clean = d.cuts.arrivals.clean()
	}
	return w, nil
}

func isTestPeer(name string) bool { return name == testPeer }

func (d *Datapath) addressesOf(pods []program.Pod) []links.Pod {
	list := make([]links.Pod, len(pods))
	for i, p := range pods {
		list[i] = links.Pod{Addr: p.Addr, Name: p.Name, ID: p.ID}
		list[i].Links, _ = d.announced(p.Addr)
	}
	return list
}

// extraHardware returns the additional hardware addresses of pods; nil if no pod has any.
func (d *Datapath) extraHardware(pods []program.Pod) (found map[string][]inet.Hardware) {
	if d.options.ExtraHardware == nil {
		return nil
	}
	for _, p := range pods {
		if list := d.options.ExtraHardware(p.Name); len(list) > 0 {
			if found == nil {
				found = map[string][]inet.Hardware{}
			}
			found[p.Name] = list
		}
	}
	return found
}

// announced returns the interfaces that the container runtime announced for an address; ok is false if it
// did not announce the address.
func (d *Datapath) announced(a netip.Addr) (ifaces []string, ok bool) {
	if d.options.Announced == nil {
		return nil, false
	}
	return d.options.Announced(a)
}

// addresses are the node's own addresses and the broadcast addresses of its networks.
type addresses struct{ own, broadcasts []netip.Addr }

func (d *Datapath) observeAddresses() (a addresses, err error) {
	a.own, a.broadcasts, err = d.links.Addresses()
	return a, err
}

// observeConnections takes the denied connections that were found. If the caller does not end them it has
// to give them back.
func (d *Datapath) observeConnections(node addresses, report *Report) decide.Connections {
	c := decide.Connections{Unreadable: d.cuts.why, Node: node.own, Broadcasts: node.broadcasts}
	if c.Unreadable != nil {
		return c
	}
	c.Read, c.Refused = d.table.unheard, d.table.refused
	c.Found, report.Cuts.Scans = d.cuts.audit.take(maxCuts)
	c.More = len(c.Found) == maxCuts
	c.Failed = report.Cuts.Scans.Err
	report.Cuts.Reused += d.cuts.arrivals.ended()
	return c
}

// takeNotices takes the pending notifications. Lost ones can be ignored if the generation shows that all
// transactions were ours.
func (d *Datapath) takeNotices() (nft.Notice, error) {
	n := d.take()
	if !n.Lost {
		return n, nil
	}
	others, _, err := d.conn.OthersSince(d.table.mark)
	if err != nil || others || !d.table.known {
		n.Table, n.Hooks = true, true
	}
	return n, err
}
