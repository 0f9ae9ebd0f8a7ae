// SPDX-License-Identifier: Apache-2.0

// Package generate writes network policies that allow the flows that were seen, and nothing else. It
// owns what a flow becomes in a policy: the selectors of its ends, its port, and the marks that say how
// often and when it was seen.
//
// It is pure: records and a cluster are given to it, and API objects are returned. Flows that were
// denied never become rules, and no address of a node, of a Service or of the pods' network becomes an
// ipBlock.
package generate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// Input is what policies are made from.
type Input struct {
	Snap  *cluster.Snapshot
	Nodes []*cluster.Node
	// Services are the addresses of Services: what has one was not translated yet.
	Services map[netip.Addr]bool
	// Workload has the name of the object that a pod was made of.
	Workload map[cluster.Key]string
	// Records are those of all nodes in the window, of both verdicts: flows that were denied are
	// left out, also where the other direction would have been denied.
	Records []denied.Record
	// Chosen says which pods get policies.
	Chosen func(cluster.Key) bool
	// From and To are the window of the records.
	From, To time.Time
}

// Result are the policies, and what they do not allow.
type Result struct {
	// Policies are sorted by namespace and name. They isolate the directions in which flows were
	// seen.
	Policies []*networkingv1.NetworkPolicy
	// LeftOut are flows that no rule was written for: the policies deny them.
	LeftOut []LeftOut
	// Notes are what to know about the policies.
	Notes []string
}

// LeftOut is a flow without a rule.
type LeftOut struct {
	Flow denied.Record `json:"flow"`
	Why  string        `json:"why"`
}

// String names the flow and the reason.
func (l LeftOut) String() string {
	return fmt.Sprintf("left out: %s to %s %s: %s", l.Flow.Source, l.Flow.Destination, l.Flow.Service(), l.Why)
}

// seen is how often and when something was seen.
type seen struct {
	count       uint64
	first, last time.Time
}

func (s *seen) add(o seen) {
	if s.count == 0 || o.first.Before(s.first) {
		s.first = o.first
	}
	if o.last.After(s.last) {
		s.last = o.last
	}
	s.count += o.count
}

// side is one direction of the pods of a group.
type side struct {
	subject   *group
	direction string
}

func compareSides(a, b side) int {
	return cmp.Or(a.subject.compare(b.subject), cmp.Compare(b.direction, a.direction)) // ingress first
}

// peer is a group of pods, or an address outside of the cluster.
type peer struct {
	pods    *group
	address netip.Addr
}

func comparePeers(a, b peer) int {
	if a.pods == nil || b.pods == nil {
		return cmp.Or(cmp.Compare(btoi(a.pods == nil), btoi(b.pods == nil)), a.address.Compare(b.address))
	}
	return a.pods.compare(b.pods)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

type port struct {
	protocol string
	number   uint16
}

func comparePorts(a, b port) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.number, b.number))
}

// allowed has the ports of each peer of a side.
type allowed map[peer]map[port]*seen

// Policies returns the policies for the flows that were seen.
func Policies(in Input) Result {
	g := newGroups(in)
	var r Result
	sides := map[side]allowed{}
	by := map[side]map[cluster.Key]bool{}
	refused := deniedFlows(in.Records)
	for i := range in.Records {
		one := &in.Records[i]
		pod := one.Subject().Pod
		if one.Verdict != denied.WouldDeny || pod == nil || !in.Chosen(*pod) {
			continue
		}
		s, p, why := g.rule(one)
		if refused[flowOf(one)] {
			why = "policies that are enforced denied it"
		}
		if why != "" {
			r.LeftOut = append(r.LeftOut, LeftOut{*one, why})
			continue
		}
		if sides[s] == nil {
			sides[s], by[s] = allowed{}, map[cluster.Key]bool{}
		}
		sides[s].add(p, one)
		for _, k := range one.Policies {
			by[s][k] = true
		}
	}
	r.Policies = g.write(in, sides)
	r.Notes = append(g.notes(sides), together(in.Snap, by)...)
	return r
}

func (a allowed) add(p peer, r *denied.Record) {
	if a[p] == nil {
		a[p] = map[port]*seen{}
	}
	at := port{r.Protocol, r.Port}
	if a[p][at] == nil {
		a[p][at] = &seen{}
	}
	a[p][at].add(seen{r.Count, r.First, r.Last})
}

// flow is what the records of both directions of a flow have in common.
type flow struct {
	source, destination netip.Addr
	port
}

func flowOf(r *denied.Record) flow {
	return flow{r.Source.Address, r.Destination.Address, port{r.Protocol, r.Port}}
}

// deniedFlows are the flows that policies denied in a direction at any time of the window.
func deniedFlows(list []denied.Record) map[flow]bool {
	m := map[flow]bool{}
	for i := range list {
		if list[i].Verdict != denied.WouldDeny {
			m[flowOf(&list[i])] = true
		}
	}
	return m
}

// together names the policies in audit mode that allow something themselves: of that there are no
// records, so that the new policies deny it where they are enforced alone.
func together(snap *cluster.Snapshot, by map[side]map[cluster.Key]bool) (notes []string) {
	also := map[cluster.Key]bool{}
	for s, policies := range by {
		for k := range policies {
			i := slices.IndexFunc(snap.Policies, func(p *cluster.Policy) bool { return p.Key == k })
			if i < 0 {
				continue
			}
			rules := snap.Policies[i].Ingress
			if s.direction == egress {
				rules = snap.Policies[i].Egress
			}
			if len(rules) > 0 {
				also[k] = true
			}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(also), cluster.Key.Compare) {
		notes = append(notes, fmt.Sprintf("policy %s, in audit mode, allows flows too: they have no records; enforce "+
			"it before these policies, or those flows are denied", k))
	}
	return notes
}
