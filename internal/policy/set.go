// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
)

// SetKey identifies a set by its meaning. It is a struct and not a joined
// string, so that no two meanings can share a key.
type SetKey struct {
	Namespace  string // exact namespace, empty if Namespaces selects
	Namespaces string // text of the namespace selector
	Pods       string // text of the pod selector
	Local      bool
	PortName   string
	Protocol   cluster.Protocol
}

// SetSpec describes the members of a set: the addresses of the networked pods
// that both selectors match, for a named port together with the numbers that
// each pod declares under the name.
type SetSpec struct {
	Namespace  string            // the only namespace; empty means any, known or not
	Namespaces *cluster.Selector // if set, the namespaces that match
	Pods       cluster.Selector
	// Local restricts the set to pods of this node. It serves the named ports of
	// ingress rules, whose destination is always a local subject.
	Local bool
	// PortName makes this a set of addresses and ports.
	PortName string
	Protocol cluster.Protocol
}

// Key returns the identity of the set.
func (s *SetSpec) Key() SetKey {
	k := SetKey{Namespace: s.Namespace, Pods: s.Pods.Text(), Local: s.Local, PortName: s.PortName, Protocol: s.Protocol}
	switch {
	case s.Namespaces != nil:
		k.Namespaces = s.Namespaces.Text()
	case s.Namespace == "":
		k.Namespaces = "<any>" // no selector has this text
	}
	return k
}

// String describes the set for people.
func (s *SetSpec) String() string {
	where := "namespace " + s.Namespace
	switch {
	case s.Namespaces != nil:
		where = "namespaces " + s.Namespaces.String()
	case s.Namespace == "":
		where = "any namespace"
	}
	text := fmt.Sprintf("pods %s in %s", s.Pods, where)
	if s.PortName != "" {
		text = fmt.Sprintf("port %s/%s of %s", s.Protocol, s.PortName, text)
	}
	return text
}

// owners returns the pods to which an address belongs, of all that have it in
// their status. While a pod that is being deleted still names an address that
// another one got, it belongs to the other.
func owners(claimants []*cluster.Pod) []*cluster.Pod {
	if len(claimants) < 2 {
		return claimants
	}
	var staying []*cluster.Pod
	for _, p := range claimants {
		if !p.Terminating {
			staying = append(staying, p)
		}
	}
	if len(staying) == 0 {
		return claimants
	}
	return staying
}

// elements appends what a pod puts into the set for one of its addresses.
// namespace is the pod's namespace, nil while it is not known: then no
// namespace selector matches it, not even the empty one.
func (s *SetSpec) elements(list []filter.Element, p *cluster.Pod, namespace *cluster.Namespace, a netip.Addr) []filter.Element {
	if !p.Networked() {
		return list
	}
	switch {
	case s.Namespaces != nil:
		if namespace == nil || !s.Namespaces.Matches(namespace.Labels) {
			return list
		}
	case s.Namespace != "" && s.Namespace != p.Key.Namespace:
		return list
	}
	if !s.Pods.Matches(p.Labels) {
		return list
	}
	if s.PortName == "" {
		return append(list, filter.Element{Addr: a})
	}
	for _, port := range p.Ports {
		if port.Name == s.PortName && port.Protocol == s.Protocol {
			list = append(list, filter.Element{Addr: a, Port: port.Port})
		}
	}
	return list
}
