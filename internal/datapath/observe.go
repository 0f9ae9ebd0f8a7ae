// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"net/netip"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kuberouter"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The first third of a pass: what is read. Nothing here changes the kernel. What was
// found denied is taken from those who found it.

// look asks what other programs do at our hooks. It comes before a read, so that
// no generation is taken as known of which nobody has seen the others' rules.
func (d *Datapath) look() error {
	g, err := d.conn.Generation()
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
	d.survey, d.surveyed = &s, g
	return nil
}

// observeWiring reads how the pods are wired. It comes after the rules of others and
// our table were read.
func (d *Datapath) observeWiring(ctx context.Context, all *program.Program) (decide.Wiring, error) {
	paths, err := d.links.Find(ctx, addressesOf(all.Pods))
	if err != nil {
		return decide.Wiring{}, err // without them the closing rules would be taken away
	}
	w := decide.Wiring{
		Now: d.now(), Paths: paths, Routed: map[netip.Addr]bool{}, Announced: map[netip.Addr]bool{}, Unclear: d.links.Unclear(),
		Open: append(d.links.Open(), testLink), Strangers: d.links.Strangers(), Carried: d.links.Carried(), NodePorts: d.links.NodePorts(),
		Bridges: d.links.Bridges(), AnyBridge: d.links.AnyBridge(),
		Others: decide.Others{NATBefore: d.survey.Before, DropsInvalid: d.survey.DropsInvalid, KubeRouter: d.survey.Known},
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
		w.Announced[pod.Addr] = d.options.Announced != nil && d.options.Announced(pod.Addr)
	}
	if d.cuts.conn != nil {
		w.Beside, w.Clean = d.cuts.arrivals.clean()
	}
	return w, nil
}

func addressesOf(pods []program.Pod) []links.Pod {
	list := make([]links.Pod, len(pods))
	for i, p := range pods {
		list[i] = links.Pod{Addr: p.Addr, Name: p.Name, ID: p.ID}
	}
	return list
}

// observeConnections takes what was found denied. Until it is ended somebody has to
// give it back.
func (d *Datapath) observeConnections(report *Report) (decide.Connections, error) {
	c := decide.Connections{Unreadable: d.cuts.why}
	if c.Unreadable != nil {
		return c, nil
	}
	var err error
	if c.Node, c.Broadcasts, err = links.Addresses(); err != nil {
		return c, err
	}
	c.Read, c.Refused = d.table.unheard, d.table.refused
	c.Found, report.Cuts.Looked = d.cuts.audit.take(maxCuts)
	c.More = len(c.Found) == maxCuts
	c.Failed = report.Cuts.Looked.Err
	report.Cuts.Reused += d.cuts.arrivals.ended()
	return c, nil
}

// seen returns what happened in the kernel. Of lost notifications it does not
// matter what they said, if all transactions were ours.
func (d *Datapath) seen() (nft.Notice, error) {
	n := d.take()
	if !n.Lost {
		return n, nil
	}
	g, err := d.conn.Generation()
	if err != nil || g != d.table.generation || !d.table.known {
		n.Table, n.Hooks = true, true
	}
	return n, err
}
