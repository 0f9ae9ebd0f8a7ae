// SPDX-License-Identifier: Apache-2.0

// Package policy determines the meaning of the cluster's policies for one node: which local pods
// are isolated, by which policies, and which sets of addresses the rules of those policies use.
//
// It is pure. Index keeps the result up to date at a cost that depends on the change; Resolve
// computes the same result from a whole snapshot in the plainest way; tests compare them. Package
// compile turns the Model into a program.
package policy

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

// Model is the resolved meaning of the policies for one node. It is immutable.
type Model struct {
	// Layout is shared between models as long as only members of sets changed.
	Layout *Layout
	// Sets has the members of every set that the layout refers to.
	Sets map[SetKey]Members
	// Diagnostics are about policies that allow nothing because they are above the budget of their
	// namespace.
	Diagnostics []cluster.Diagnostic
	// Filled is the number of set members that are new since the previous model, by one of the
	// namespaces whose policies refer to the set.
	Filled map[string]int
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
	// AuditIngress and AuditEgress are what policies in audit mode would isolate, in a direction in
	// which no policy isolates the pod. They change no verdict.
	AuditIngress, AuditEgress Isolation
}

// Isolation of a pod in one direction. A pod is isolated in a direction if at least one policy with
// that type selects it; the allowed traffic is the union of what these policies allow.
type Isolation struct {
	Isolated bool
	Policies []*Resolved // sorted by policy key
}

// Resolved is a policy whose rules name sets instead of selectors.
type Resolved struct {
	Policy          *cluster.Policy
	Ingress, Egress []Rule

	closed *Resolved // the same without rules
}

// Rule is a rule of the API. It allows traffic that matches one of its peers and one of its ports.
// Peers and ports are kept apart, so that a rule takes their sum and not their product.
type Rule struct {
	Index int // in the API object
	// AnyPeer allows every peer. Otherwise a peer is in one of Blocks or Pods.
	AnyPeer bool
	Blocks  []*cluster.IPBlock
	Pods    []*SetSpec
	// AnyPort allows every port of every protocol. Otherwise a port is one of
	// Ports, or destination and port are in one of Named.
	AnyPort bool
	Ports   []cluster.Port // without names
	// Named are the destinations and ports for the named ports, one set per protocol. In an egress
	// rule it is used only with AnyPeer and Blocks.
	Named []*SetSpec
	// Direct is the same for an egress rule whose peers are pods: there the peer is the
	// destination, so membership in the set is the whole condition.
	Direct []*SetSpec
}

// specs returns the sets that the policy refers to.
func (r *Resolved) specs() map[SetKey]*SetSpec {
	found := map[SetKey]*SetSpec{}
	for _, list := range [][]Rule{r.Ingress, r.Egress} {
		for i := range list {
			for _, s := range slices.Concat(list[i].Pods, list[i].Named, list[i].Direct) {
				if found[s.key] == nil {
					found[s.key] = s
				}
			}
		}
	}
	return found
}

// Members are the addresses of a set, by family.
type Members struct{ V4, V6 inet.Elements }

// Of returns the members of one family.
func (m Members) Of(f inet.Family) inet.Elements {
	if f == inet.IPv6 {
		return m.V6
	}
	return m.V4
}

func (m *Members) of(e inet.Element) *inet.Elements {
	if e.Addr.Is4() {
		return &m.V4
	}
	return &m.V6
}

func (m *Members) add(e inet.Element)    { s := m.of(e); *s = s.With(e) }
func (m *Members) remove(e inet.Element) { s := m.of(e); *s = s.Without(e) }

// replace removes the elements that are only in before and adds those that are only in after. Both
// are sorted.
func (m *Members) replace(before, after []inet.Element) {
	inet.EachChange(before, after, m.remove, m.add)
}

// membersFrom makes members from a list, which it may modify.
func membersFrom(list []inet.Element) Members {
	n := 0 // number of IPv4 elements, which come first
	for i, e := range list {
		if e.Addr.Is4() {
			list[n], list[i] = list[i], list[n]
			n++
		}
	}
	return Members{V4: immutable.Of(list[:n]...), V6: immutable.Of(list[n:]...)}
}
