// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
)

// resolvePolicy turns the rules of a policy into clauses.
func resolvePolicy(p *cluster.Policy) *Resolved {
	return &Resolved{
		Policy:  p,
		Ingress: clauses(p, filter.Ingress, p.Ingress),
		Egress:  clauses(p, filter.Egress, p.Egress),
	}
}

func clauses(p *cluster.Policy, d filter.Direction, rules []cluster.Rule) []Clause {
	var list []Clause
	for _, r := range rules {
		for _, peer := range peers(p, r.Peers) {
			for _, port := range ports(r.Ports) {
				c := Clause{Rule: r.Index, Block: peer.block, Peer: peer.pods, Port: port}
				if port != nil && port.Name != "" {
					c.Dest = namedPort(p, d, peer.pods, port)
					if d == filter.Egress {
						c.Peer = nil // the peer is the destination: Dest says it all
					}
				}
				list = append(list, c)
			}
		}
	}
	return list
}

// peer is one alternative of a rule's peers; both fields nil means anybody.
type peer struct {
	block *cluster.IPBlock
	pods  *SetSpec
}

func peers(p *cluster.Policy, from cluster.Peers) []peer {
	if from.Any {
		return []peer{{}}
	}
	var list []peer
	for _, e := range from.List {
		switch {
		case e.Block != nil:
			list = append(list, peer{block: e.Block})
		case e.Namespaces != nil:
			list = append(list, peer{pods: &SetSpec{Namespaces: e.Namespaces, Pods: e.Pods}})
		default:
			list = append(list, peer{pods: &SetSpec{Namespace: p.Key.Namespace, Pods: e.Pods}})
		}
	}
	return list
}

func ports(from cluster.Ports) []*cluster.Port {
	if from.Any {
		return []*cluster.Port{nil}
	}
	var list []*cluster.Port
	for i := range from.List {
		list = append(list, &from.List[i])
	}
	return list
}

// namedPort returns the set of destinations that a named port stands for. The
// name is looked up in the destination pod: for ingress that is the subject,
// for egress it is the peer, or any pod of the cluster when the peer is
// anybody or a block of addresses. An address that is no pod declares no ports,
// so the rule does not reach it.
func namedPort(p *cluster.Policy, d filter.Direction, pods *SetSpec, port *cluster.Port) *SetSpec {
	var spec SetSpec
	switch {
	case d == filter.Ingress:
		spec = SetSpec{Namespace: p.Key.Namespace, Pods: p.Subject, Local: true}
	case pods != nil:
		spec = *pods
	default:
		spec = SetSpec{Pods: cluster.Everything()}
	}
	spec.PortName, spec.Protocol = port.Name, port.Protocol
	return &spec
}
