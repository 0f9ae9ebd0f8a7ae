// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
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
	// found is about addresses that pods do not get, and about policies that were probably
	// meant in another way.
	found []cluster.Diagnostic
}

// planned reads what the run is about out of the input.
func (r *run) planned(in *input, loaded *manifest.Result, ports []port, hosts []trial.Host) (*plan, error) {
	used := usedAddresses(in, loaded, hosts)
	in.place(used)
	p := &plan{nodes: in.nodes, ports: ports}
	var err error
	if p.bare, err = in.render(false); err == nil {
		p.full, err = in.render(true)
	}
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse("cluster.yaml", p.full)
	if err != nil {
		return nil, fmt.Errorf("reading the manifests again: %w", err)
	}
	nodes := lab.FreeNetwork(used.list())
	var nodeList []*cluster.Node
	for i, name := range in.nodes {
		nodeList = append(nodeList, &cluster.Node{Name: name, Addrs: nodes.Node(i)})
	}
	p.snap, p.found = r.extra.settle(m, nodeList)
	p.found = slices.Concat(in.found, p.found, newIn(m.Diagnostics, loaded.Diagnostics), in.questions(p.snap))
	p.connect(m, used, nodes, hosts)
	if err := p.point(in, r.scopeFlags); err != nil {
		return nil, err
	}
	if len(p.ports) == 0 {
		p.ports = choosePorts(in.pods, m.Policies)
	}
	p.notes = hairpinNotes(lab.Wiring(r.wiring), p.services, p.snap.Pods)
	return p, nil
}

// newIn returns what is found in the manifests of the lab and was not found in those of the
// user: about pods that were made of workloads, say.
func newIn(now, before []cluster.Diagnostic) []cluster.Diagnostic {
	return slices.DeleteFunc(slices.Clone(now), func(d cluster.Diagnostic) bool {
		return ofUnused(d) || ofWorkload(d) || slices.ContainsFunc(before, func(known cluster.Diagnostic) bool {
			return known.Kind == d.Kind && known.Object == d.Object
		})
	})
}

// connect says which wires there are.
func (p *plan) connect(m *manifest.Result, used addressBook, nodes lab.Network, hosts []trial.Host) {
	pods := p.snap.Pods
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
		used.add(h.Addrs...)
	}
	p.services = fronts(m.Services, pods, func(a netip.Addr) bool { return used[a] || nodes.Contains(a) })
	for _, f := range p.services {
		p.state.Services = append(p.state.Services, f.Service)
		used.add(f.Front.Addr())
	}
	p.used = used.list()
}

// point says who is asked about.
func (p *plan) point(in *input, s scopeFlags) (err error) {
	p.ends, p.scope, err = s.narrow(endsOf(p.snap.Pods, p.state.Hosts, in.made))
	return err
}

// podAddrs returns the addresses that pods have.
func (p *plan) podAddrs() []netip.Addr {
	book := addressBook{}
	for _, pod := range p.state.Pods {
		book.add(pod.IPs...)
	}
	return book.list()
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
