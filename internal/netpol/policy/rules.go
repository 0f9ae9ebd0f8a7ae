// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/program"
)

// maxSelectors is the number of selectors of a rule that may have a set of their own, shared by
// rules with the same selector. The pods of more selectors become one set, so that a packet needs
// one lookup however long the list is.
const maxSelectors = 8

// resolvePolicy turns the selectors of a policy into sets.
func resolvePolicy(p *cluster.Policy) *Resolved {
	return &Resolved{
		Policy:  p,
		closed:  &Resolved{Policy: p},
		Ingress: rules(p, program.Ingress, p.Ingress),
		Egress:  rules(p, program.Egress, p.Egress),
	}
}

func rules(p *cluster.Policy, d program.Direction, list []cluster.Rule) []Rule {
	resolved := make([]Rule, len(list))
	for i := range list {
		resolved[i] = rule(p, d, &list[i])
	}
	return resolved
}

func rule(p *cluster.Policy, d program.Direction, from *cluster.Rule) Rule {
	r := Rule{Index: from.Index, AnyPeer: from.Peers.Any, AnyPort: from.Ports.Any}
	r.Blocks = blocks(from.Peers.List)
	pods := selections(p, from.Peers.List)
	names := map[cluster.Protocol][]string{}
	for _, port := range from.Ports.List {
		if port.Name == "" {
			r.Ports = append(r.Ports, port)
		} else {
			names[port.Protocol] = append(names[port.Protocol], port.Name)
		}
	}
	if r.AnyPort || len(r.Ports) > 0 || d == program.Ingress {
		r.Pods = podSets(pods)
	}
	for _, protocol := range cluster.Protocols {
		if len(names[protocol]) > 0 {
			r.name(p, d, pods, protocol, names[protocol])
		}
	}
	return r
}

// name adds the sets of destinations for named ports of a protocol. The name is looked up in the
// destination pod: for ingress that is the subject, for egress the peer, or any pod of the cluster
// if the peer is unrestricted or a block. An address outside pods declares no ports, so the rule
// does not allow it.
func (r *Rule) name(p *cluster.Policy, d program.Direction, pods []Selection, protocol cluster.Protocol,
	names []string) {
	switch {
	case d == program.Ingress:
		subject := Selection{Namespace: p.Key.Namespace, Pods: p.Subject}
		r.Named = append(r.Named, NewSetSpec(true, protocol, names, subject))
		return
	case len(pods) > 0:
		r.Direct = append(r.Direct, NewSetSpec(false, protocol, names, pods...))
	}
	if r.AnyPeer || len(r.Blocks) > 0 {
		r.Named = append(r.Named, NewSetSpec(false, protocol, names, Selection{Pods: cluster.Everything()}))
	}
}

func blocks(list []cluster.Peer) (found []*cluster.IPBlock) {
	for _, e := range list {
		if e.Block != nil {
			found = append(found, e.Block)
		}
	}
	return found
}

func selections(p *cluster.Policy, list []cluster.Peer) (found []Selection) {
	for _, e := range list {
		switch {
		case e.Block != nil:
		case e.Namespaces != nil:
			found = append(found, Selection{Namespaces: e.Namespaces, Pods: e.Pods})
		default:
			found = append(found, Selection{Namespace: p.Key.Namespace, Pods: e.Pods})
		}
	}
	return found
}

// podSets returns a set for each selection, or one for all.
func podSets(list []Selection) []*SetSpec {
	if len(list) > maxSelectors {
		return []*SetSpec{NewSetSpec(false, 0, nil, list...)}
	}
	var specs []*SetSpec
	for _, s := range list {
		if spec := NewSetSpec(false, 0, nil, s); !slices.ContainsFunc(specs,
			func(o *SetSpec) bool { return o.key == spec.key }) {
			specs = append(specs, spec)
		}
	}
	return specs
}
