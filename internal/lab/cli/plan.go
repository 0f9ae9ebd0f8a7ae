// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/source/manifest"
)

// plan is what is to be built and asked: everything that is known before the lab
// stands.
type plan struct {
	nodes      []string
	used       []netip.Addr
	bare, full []byte // the manifests without and with policies
	snap       *cluster.Snapshot
	state      trial.State
	services   []front
	ends       []end
	scope      scope
	ports      []port
	leftOut    []leftOut
	notes      []string
	// found is about objects that are not used as written, questions about policies that were
	// probably meant in another way.
	found, questions []cluster.Diagnostic
}

// planned reads what the run is about out of the input.
func (r *run) planned(in *complete.Input, loaded *manifest.Result, ports []port, hosts []trial.Host) (*plan, error) {
	var addrs []netip.Addr
	for _, h := range hosts {
		addrs = append(addrs, h.Addrs...)
	}
	w, err := complete.Build(in, loaded, complete.Options{Hosts: addrs, Allow: r.extra.allowance()})
	if err != nil {
		return nil, err
	}
	p := &plan{nodes: in.Nodes, ports: ports, bare: w.Bare, full: w.Full, snap: w.Snapshot,
		found: w.Found, questions: questions(in, w.Snapshot)}
	p.connect(w, hosts)
	if err := p.point(in, r.scopeFlags); err != nil {
		return nil, err
	}
	if len(p.ports) == 0 {
		p.ports = choosePorts(in.Pods, w.Manifests.Policies)
	}
	p.notes = hairpinNotes(lab.Wiring(r.wiring), p.services, p.snap.Pods)
	return p, nil
}

// connect says which wires there are.
func (p *plan) connect(w *complete.World, hosts []trial.Host) {
	pods, m, used, nodes := p.snap.Pods, w.Manifests, w.Used, w.Network
	for _, pod := range pods {
		if pod.Networked() {
			p.state.Pods = append(p.state.Pods, lab.PodSpec{Key: pod.Key, Node: pod.Node, IPs: pod.IPs})
		}
	}
	p.state.Hosts = hosts
	if len(hosts) == 0 {
		p.state.Hosts = chooseHosts(m.Policies, func(a netip.Addr) bool { return podHas(pods, a) || nodes.Contains(a) })
	}
	for _, h := range p.state.Hosts {
		used.Add(h.Addrs...)
	}
	p.services = fronts(m.Services, pods, func(a netip.Addr) bool { return used[a] || nodes.Contains(a) })
	for _, f := range p.services {
		p.state.Services = append(p.state.Services, f.Service)
		used.Add(f.Front.Addr())
	}
	p.used = used.List()
}

// point says who is asked about.
func (p *plan) point(in *complete.Input, s scopeFlags) (err error) {
	p.ends, p.scope, err = s.narrow(endsOf(p.snap.Pods, p.state.Hosts, in.Made))
	return err
}

// podAddrs returns the addresses that pods have.
func (p *plan) podAddrs() []netip.Addr {
	book := complete.Addresses{}
	for _, pod := range p.state.Pods {
		book.Add(pod.IPs...)
	}
	return book.List()
}

// mine reports whether a Service leads to an end of the scope.
func (p *plan) mine(f front) bool {
	for _, b := range f.Backends {
		for i, e := range p.ends {
			if e.pod != nil && p.scope.to[i] && podHas([]*cluster.Pod{e.pod}, b.Addr()) {
				return true
			}
		}
	}
	return false
}
