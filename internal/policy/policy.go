// SPDX-License-Identifier: Apache-2.0

// Package policy says what the policies of the cluster mean for one node: which
// local pods are isolated, by which policies, and which sets of addresses the
// rules of those policies speak about.
//
// It is pure. Index keeps the answer up to date at a cost that follows the
// change, Resolve computes the same answer from a whole snapshot in the plainest
// way; tests hold them against each other. Package compile turns the Model into
// a program.
package policy

import (
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/persist"
)

// Model is the resolved meaning of the policies for one node. It is immutable.
type Model struct {
	// Layout is shared between models as long as only members of sets changed.
	Layout *Layout
	// Sets has the members of every set that the layout refers to.
	Sets map[SetKey]Members
}

// Layout is the part of a model that does not depend on remote pods.
type Layout struct {
	// Workloads are the local pods that have a network of their own, sorted by key.
	Workloads []Workload
	// Specs are the sets that the rules refer to, by key.
	Specs map[SetKey]*SetSpec
}

// Workload is a local pod and the policies that isolate it.
type Workload struct {
	Pod             *cluster.Pod
	Ingress, Egress Isolation
}

// Isolation of a pod in one direction. A pod is isolated in a direction if at
// least one policy with that type selects it; the allowed traffic is the union
// of what these policies allow.
type Isolation struct {
	Isolated bool
	Policies []*Resolved // sorted by policy key
}

// Resolved is a policy whose rules name sets instead of selectors.
type Resolved struct {
	Policy          *cluster.Policy
	Ingress, Egress []Clause
}

// Clause allows what meets all of its conditions; a rule of the API becomes
// one clause for each pair of a peer and a port.
type Clause struct {
	Rule int // index of the rule in the API object
	// Port is the port condition. For a named port Dest is set and Port says
	// only the protocol. Nil means every port of every protocol.
	Port *cluster.Port
	// Block is the peer as an IP block, nil for other peers.
	Block *cluster.IPBlock
	// Peer is the set of addresses that the peer is in, nil for other peers.
	Peer *SetSpec
	// Dest is the set of addresses and ports that the destination is in: how a
	// named port is expressed. Nil for rules without a named port.
	Dest *SetSpec
}

// Members are the addresses of a set, by family.
type Members struct{ V4, V6 filter.Elements }

// Of returns the members of one family.
func (m Members) Of(f filter.Family) filter.Elements {
	if f == filter.IPv6 {
		return m.V6
	}
	return m.V4
}

func (m *Members) of(e filter.Element) *filter.Elements {
	if e.Addr.Is4() {
		return &m.V4
	}
	return &m.V6
}

func (m *Members) add(e filter.Element)    { s := m.of(e); *s = s.With(e) }
func (m *Members) remove(e filter.Element) { s := m.of(e); *s = s.Without(e) }

// replace takes out what is only in before and adds what is only in after. Both
// are sorted.
func (m *Members) replace(before, after []filter.Element) {
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = before[0].Compare(after[0])
		}
		if order < 0 {
			m.remove(before[0])
		}
		if order > 0 {
			m.add(after[0])
		}
		if order <= 0 {
			before = before[1:]
		}
		if order >= 0 {
			after = after[1:]
		}
	}
}

// membersFrom makes members of a list at once, and may change it.
func membersFrom(list []filter.Element) Members {
	n := 0 // how many of IPv4 are in front
	for i, e := range list {
		if e.Addr.Is4() {
			list[n], list[i] = list[i], list[n]
			n++
		}
	}
	return Members{V4: persist.Of(list[:n]...), V6: persist.Of(list[n:]...)}
}
